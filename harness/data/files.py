"""Files that are whole or not there: temporary name, sync, rename; a full disk is one clear error."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from harness.errors import ResourceError


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns a full disk or a folder that cannot be written into a ResourceError that names the place."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
            raise
        free = shutil.disk_usage(path.parent).free if path.parent.exists() else 0
        raise ResourceError(
            f"cannot write {path} ({os.strerror(error.errno)}; {free} bytes free): "
            "make room, or move the state with HARNESS_HOME."
        ) from error


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is seen whole or not at all, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def allocate(stream: BinaryIO, count: int) -> None:
    """Append `count` zero bytes that the disk has really given; raises OSError where it cannot."""
    if hasattr(os, "posix_fallocate"):
        stream.flush()
        os.posix_fallocate(stream.fileno(), stream.tell(), count)
        return
    block = bytes(1 << 20)
    for start in range(0, count, len(block)):
        stream.write(block[: count - start])
