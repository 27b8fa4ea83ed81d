"""Samples as a file stores them, on their way to pixels: what every reader of a format hands over."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from harness.errors import DataError

MAX_PIXELS = 50_000_000  # in one image; refused from the header, before any memory is taken
MAX_SIDE = 65_535  # pixels: what some readers do for each row, they would do for millions
MAX_BYTES = 1_000_000_000  # of one file, which is read whole: 50 million pixels of four 32-bit samples take 800 MB
ORIENTATION = 0x0112  # the tag, in EXIF and TIFF alike


@dataclass(frozen=True)
class Raw:
    """Samples as stored: (height, width, channels), 1 or 3 colours and perhaps alpha, any dtype."""

    samples: NDArray[Any]
    alpha: bool
    kind: str
    frames: int
    converted: tuple[str, ...]


def check_size(width: int, height: int) -> None:
    """Refuse an image by the size its header names; raises DataError without the file's name."""
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise DataError(
            f"holds {width} x {height} pixels, above the limit of {MAX_PIXELS // 1_000_000} million, "
            f"{MAX_SIDE:,} a side: cut it into tiles"
        )
    if width < 1 or height < 1:
        raise DataError("has no pixels")


def read_bytes(path: Path) -> bytes:
    """The bytes of a file; raises DataError, without its name, where they are too many, and OSError."""
    if (size := path.stat().st_size) > MAX_BYTES:
        raise DataError(f"holds {size / 1e9:.1f} GB, above the limit of {MAX_BYTES / 1e9:.0f} GB: cut it into tiles")
    return path.read_bytes()


def turn(samples: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Samples (height, width, …) as the EXIF orientation 1 to 8 wants them shown; other values change nothing."""
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return samples
