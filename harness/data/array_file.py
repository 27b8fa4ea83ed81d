"""Array files: a .npy file with a row for each image, and beside it a .crc file with the checksum of each row.

With a checksum a row, a start can check a sample, since reading 100,000 images of 224 px would take minutes; the doctor
checks all rows.
"""

from __future__ import annotations

import io
import random
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.atomic import atomic_write
from harness.data.staged_rows import HEADER

SAMPLE = 64  # rows that a start checks; all rows of an array that is not larger than _SMALL
_SMALL = 32 << 20  # bytes


def header_of(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """Return the header of a .npy file, HEADER bytes long."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    )
    header = stream.getvalue()
    assert len(header) == HEADER  # NumPy leaves room for growing shapes in it
    return header


def write_checks(path: Path, header: bytes, checks: NDArray[np.uint32]) -> None:
    """Write the checksums of an array's rows beside it. Their own checksum and the header's come first."""
    body = np.array([zlib.crc32(header)], "<u4").tobytes() + checks.astype("<u4").tobytes()
    atomic_write(path.with_suffix(".crc"), zlib.crc32(body).to_bytes(4, "little") + body)


def is_sound(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Return whether the file has this shape and type and its full length, and a sample of its rows is unchanged."""
    return _holds(path, header_of(shape, dtype), sample=True)


def is_whole(path: Path) -> bool:
    """Return whether every row of the file has the checksum that was stored when it was made."""
    try:
        with path.open("rb") as stream:
            return _holds(path, stream.read(HEADER), sample=False)
    except OSError:
        return False


def _holds(path: Path, header: bytes, *, sample: bool) -> bool:
    try:
        stored = path.with_suffix(".crc").read_bytes()
        checks = np.frombuffer(stored, "<u4")
        if zlib.crc32(stored[4:]) != checks[0] or zlib.crc32(header) != checks[1]:
            return False
        rows = len(checks) - 2
        with path.open("rb") as stream:
            if stream.read(HEADER) != header:
                return False
            step, rest = divmod(path.stat().st_size - HEADER, max(rows, 1))
            if rest or step < 0:
                return False
            chosen: Any = range(rows)
            if sample and rows * step > _SMALL and rows > SAMPLE:
                # Others at every start; no number depends on which.
                chosen = sorted({0, rows - 1, *random.sample(range(rows), SAMPLE - 2)})
            for row in chosen:
                stream.seek(HEADER + row * step)
                if zlib.crc32(stream.read(step)) != checks[2 + row]:
                    return False
    except (OSError, ValueError, IndexError):
        return False
    return True
