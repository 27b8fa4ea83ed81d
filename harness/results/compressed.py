"""Compressed files of a stored study, which may come from anyone: none is unpacked further than its size allows."""

from __future__ import annotations

import gzip
import io
import math
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from harness.errors import HarnessError

# A bomb shrinks to a thousandth. The log of 10,000 trials has 60 MB and packs to a tenth; as events in memory it takes
# several times as much. Predictions shrink less, and small images with one background may shrink more.
MOST_BYTES = 1 << 27
_MOST_RATIO = 30
_MOST_ARRAY_RATIO = 100
_ALWAYS_ALLOWED = 1 << 20  # however small the file is
_MOST_ARRAY_BYTES = 1 << 29
# Names of groups are stored in four bytes a character, so a few thousand long ones pack to almost nothing.
_ALWAYS_ALLOWED_ARRAYS = 1 << 24


def most_unpacked(path: Path) -> int:
    """Bytes that a gzip file may unpack to, from its size alone."""
    return min(MOST_BYTES, _ALWAYS_ALLOWED + _MOST_RATIO * path.stat().st_size)


def _most_array_bytes(path: Path) -> int:
    """Bytes that all arrays of an .npz file may have together, from its size alone."""
    return min(_MOST_ARRAY_BYTES, _ALWAYS_ALLOWED_ARRAYS + _MOST_ARRAY_RATIO * path.stat().st_size)


def compressed(content: bytes) -> bytes:
    """The content as gzip; the same content gives the same bytes."""
    return gzip.compress(content, 9, mtime=0)


def open_compressed(path: Path) -> BinaryIO:
    """The unpacked bytes of a gzip file, as a stream for reading.

    Raises:
        HarnessError: while it is read: the file is damaged, or holds more than `most_unpacked`.
    """
    return io.BufferedReader(_Bounded(path))


class _Bounded(io.RawIOBase):
    """Unpacks a file piece by piece, and stops at its bound."""

    def __init__(self, path: Path) -> None:
        self._path, self._left = path, most_unpacked(path)
        self._stream = gzip.GzipFile(path, "rb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            piece = self._stream.read(min(len(buffer), self._left + 1))
        except (OSError, EOFError, zlib.error) as error:
            raise HarnessError(f"{self._path.name} is damaged and cannot be unpacked: {error}") from None
        if len(piece) > self._left:
            raise HarnessError(_too_large(self._path, most_unpacked(self._path)))
        self._left -= len(piece)
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self._stream.close()
        super().close()


def check_arrays(path: Path) -> None:
    """Refuse an .npz file by what its headers say, before any of its values is unpacked.

    Raises:
        HarnessError: it is damaged, or would take more memory than its size allows.
    """
    try:
        with zipfile.ZipFile(path) as stored:
            members, most = stored.infolist(), _most_array_bytes(path)
            if sum(member.file_size for member in members) > most:  # zipfile reads no further than that
                raise HarnessError(_too_large(path, most))
            for member in members:
                with stored.open(member) as stream:
                    version = npy.read_magic(stream)
                    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                    shape, _, dtype = read(stream)
                if dtype.hasobject or math.prod(shape) * max(dtype.itemsize, 1) > member.file_size:
                    raise HarnessError(_too_large(path, most))
    except (OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise HarnessError(f"{path.name} is damaged and cannot be unpacked: {error}") from None


def read_arrays(path: Path, names: Iterable[str] | None = None) -> dict[str, NDArray[Any]]:
    """Read arrays of an .npz file, after `check_arrays` has looked it over.

    Args:
        names: of the arrays to read; all of the file if it is None.

    Raises:
        HarnessError: the file is missing or damaged, would take too much memory, or lacks one of the arrays.
    """
    check_arrays(path)
    try:
        # Opened here, because numpy leaves the file of a damaged archive open.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            return {name: stored[name] for name in (stored.files if names is None else names)}
    except KeyError as error:
        raise HarnessError(f"{path.name} lacks the array {error}") from None
    except Exception as error:  # a damaged archive raises errors of zipfile, zlib, numpy or the system
        raise HarnessError(f"{path.name} is damaged and cannot be unpacked: {error}") from None


def is_stored(path: Path) -> bool:
    """Whether this is a zip archive whose members are not compressed, as torch writes it, and fit into its size.

    Such a file takes no more memory than it has bytes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False
    plain = all(member.compress_type == zipfile.ZIP_STORED for member in members)
    return plain and sum(member.file_size for member in members) <= path.stat().st_size


def _too_large(path: Path, most: int) -> str:
    return (
        f"{path.name} has {path.stat().st_size:,} bytes and would unpack to more than {most:,}, "
        "which no file of a study does: it is not read."
    )
