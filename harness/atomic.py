"""Atomic writing of files: under a temporary name, then synced and renamed. A full disk becomes one clear error."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from harness.errors import DiskFullError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_WRITABLE = (
    *_FULL,
    *(errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EEXIST),  # a file lies where a folder should be
)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Raise a DiskFullError with the file if the block fails because of a full disk or an unwritable folder.

    Args:
        path: the file that the block writes, or a folder with it. It is named if the error itself names no file, as
            the error of a `write` does not.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
        place = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else path
        why = os.strerror(error.errno)
        if error.errno in _FULL:
            why, way_out = f"{why}; {_free(place)}", "make room there"
        else:
            way_out = "make it writable for this user"
        raise DiskFullError(
            f"cannot write {place} ({why}): {way_out}, or choose another folder with HARNESS_HOME (studies, models, "
            "caches) or HARNESS_REPORTS (pages)."
        ) from error


def _free(place: Path) -> str:
    """Return the free bytes of the file system that a file is on, or would be on, as text."""
    folder = next((folder for folder in (place, *place.absolute().parents) if folder.exists()), Path("/"))
    return f"{shutil.disk_usage(folder).free} bytes free on the file system of {folder}"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; at the end of the block, the file is synced and replaces `path`.

    A reader sees either the complete new file or the old one, even after a power failure. If the block raises an
    error, `path` does not change.

    Raises:
        DiskFullError: the disk is full, or the folder cannot be written.
    """
    # The suffix stays the same, because NumPy adds its own to other names.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    with disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)  # nothing is written through a link that someone made of that name
            yield temporary
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write a file as `atomic_path` does. Text is encoded as UTF-8, and its line ends are kept."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def allocate(stream: BinaryIO, count: int) -> None:
    """Append `count` zero bytes for which the disk has really reserved space; raise OSError if it is too full."""
    if hasattr(os, "posix_fallocate"):
        stream.flush()
        os.posix_fallocate(stream.fileno(), stream.tell(), count)
        return
    block = bytes(1 << 20)
    for start in range(0, count, len(block)):
        stream.write(block[: count - start])
