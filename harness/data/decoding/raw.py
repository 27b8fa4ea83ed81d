"""Raw: the samples of an image as its file stores them, which is what the readers of all formats return.

Also the limits on size and the EXIF orientation, which all readers use.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from harness.errors import DataError

MAX_PIXELS = 50_000_000  # in one image; a larger one is refused from its header, before any memory is allocated
MAX_SIDE = 65_535  # pixels; some readers do work for each row, even if rows are only one pixel long
MAX_BYTES = 1_000_000_000  # of one file, which is read as a whole; 50 million pixels of four 32-bit samples take 800 MB
ORIENTATION = 0x0112  # the tag, the same in EXIF and TIFF


@dataclass(frozen=True)
class Raw:
    """Samples as stored: (height, width, channels), with 1 or 3 colours and optionally alpha, of any dtype."""

    samples: NDArray[Any]
    alpha: bool  # whether the last channel is alpha
    kind: str  # such as "16-bit grey TIFF"
    frames: int
    converted: tuple[str, ...]  # what was done to the samples, as the data card shows it


def check_size(width: int, height: int) -> None:
    """Check the size that an image's header gives; raise DataError, without the file's name, if it is not allowed."""
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise DataError(
            f"has {width} x {height} pixels, above the limit of {MAX_PIXELS // 1_000_000} million in all and "
            f"{MAX_SIDE:,} a side: cut it into tiles"
        )
    if width < 1 or height < 1:
        raise DataError("has no pixels")


def read_bytes(path: Path) -> bytes:
    """Read a file; raise DataError, without the file's name, if it is too large, and OSError if it is unreadable."""
    if (size := path.stat().st_size) > MAX_BYTES:
        raise DataError(f"has {size / 1e9:.1f} GB, above the limit of {MAX_BYTES / 1e9:.0f} GB: cut it into tiles")
    return path.read_bytes()


def turn(samples: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn and mirror samples (height, width, …) by the EXIF orientation, 1 to 8; other values change nothing."""
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return samples
