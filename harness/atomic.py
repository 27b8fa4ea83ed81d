"""Files that are whole or not there: temporary name, sync, rename; a full disk is one clear error."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from harness.errors import DiskFullError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns a full disk or a folder that cannot be written into a DiskFullError that names the place."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        place = Path(error.filename) if isinstance(error.filename, str) else path
        free = shutil.disk_usage(place.parent).free if place.parent.exists() else 0
        raise DiskFullError(
            f"cannot write {place} ({os.strerror(error.errno)}; {free} bytes free): "
            "make room, or move the state with HARNESS_HOME."
        ) from error


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a path to write a file at; when the block ends it is synced and takes the place of `path`.

    A reader sees the whole new file or the one before, also after a power cut. Where the block raises, nothing changes.

    Raises:
        DiskFullError: the disk is full, or the folder cannot be written.
    """
    # the ending is kept: numpy would add its own to another
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    with disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write a file as `whole` does; text as UTF-8, its line ends as they are."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def allocate(stream: BinaryIO, count: int) -> None:
    """Append `count` zero bytes that the disk has really given; raises OSError where it cannot."""
    if hasattr(os, "posix_fallocate"):
        stream.flush()
        os.posix_fallocate(stream.fileno(), stream.tell(), count)
        return
    block = bytes(1 << 20)
    for start in range(0, count, len(block)):
        stream.write(block[: count - start])
