"""Compressed files of a stored study, which may come from anyone: none is unpacked further than its size allows."""

from __future__ import annotations

import gzip
import io
import math
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from numpy.lib import format as npy

from harness.errors import HarnessError

# The log of 10,000 trials has 60 MB and packs to a tenth; predictions shrink less. A bomb shrinks to a thousandth.
MOST_BYTES = 1 << 29
MOST_RATIO = 100
_ALWAYS_ALLOWED = 1 << 20  # however small the file is


def most_unpacked(path: Path) -> int:
    """Bytes that this file may unpack to, from its size alone."""
    return min(MOST_BYTES, _ALWAYS_ALLOWED + MOST_RATIO * path.stat().st_size)


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
            raise HarnessError(_too_large(self._path))
        self._left -= len(piece)
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self._stream.close()
        super().close()


def check_arrays(path: Path) -> None:
    """Refuse an .npz file by what its headers say, before any of its values is unpacked.

    Raises:
        HarnessError: it is damaged, or would take more memory than `most_unpacked`.
    """
    try:
        with zipfile.ZipFile(path) as stored:
            members = stored.infolist()
            if sum(member.file_size for member in members) > most_unpacked(path):  # zipfile reads no further than that
                raise HarnessError(_too_large(path))
            for member in members:
                with stored.open(member) as stream:
                    version = npy.read_magic(stream)
                    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                    shape, _, dtype = read(stream)
                if dtype.hasobject or math.prod(shape) * dtype.itemsize > member.file_size:
                    raise HarnessError(_too_large(path))
    except (OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise HarnessError(f"{path.name} is damaged and cannot be unpacked: {error}") from None


def _too_large(path: Path) -> str:
    return (
        f"{path.name} has {path.stat().st_size:,} bytes and would unpack to more than {most_unpacked(path):,}, "
        "which no file of a study does: it is not read."
    )
