"""Opened and Plane: an image file as the readers of all formats hand it on, before samples are scaled to pixels.

Also the limits on size and the EXIF orientation, which all readers use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from harness.errors import DataError

MAX_PIXELS = 50_000_000  # by default; a larger image is refused from its header, before any memory is allocated
MAX_SIDE = 65_535  # pixels; some readers do work for each row, even if rows are only one pixel long
MAX_BYTES = 1_000_000_000  # of one file, which is read as a whole; 50 million pixels of four 32-bit samples take 800 MB
MOST_SAMPLES = 4  # for each pixel of the largest image: an image of more channels must have fewer pixels
ORIENTATION = 0x0112  # the tag, the same in EXIF and TIFF

Alpha = Literal["", "straight", "premultiplied"]  # premultiplied colours were multiplied by alpha when they were stored
Form = Literal["unsigned", "signed", "float"]
Colours = Literal["grey", "RGB", "channels"]  # channels: the file does not say which colours they are


@dataclass(frozen=True)
class Plane:
    """Samples of one plane as stored: (height, width, channels), of any dtype; alpha, if there is one, is the last."""

    samples: NDArray[Any]
    alpha: Alpha
    bits: int  # of the scale: unsigned samples lie in 0 to 2^bits - 1, though their dtype may be wider
    form: Form
    converted: tuple[str, ...] = ()  # what was done to the samples, as the data card shows it


@dataclass(frozen=True)
class Opened:
    """An image file whose header was read and whose size was checked. `plane` decodes one plane of it."""

    kind: str  # such as "8-bit RGB JPEG" or "16-bit grey TIFF"
    bits: int  # as the file stores each sample
    channels: int  # of each plane, without alpha
    colours: Colours
    planes: int  # along z and time, or frames of an animation
    plane: Callable[[int], Plane]
    images: int = 1  # in the whole file, with those that are never read, such as a second series


def check_size(width: int, height: int, most: int = MAX_PIXELS, channels: int = 1) -> None:
    """Check the size that an image's header gives; raise DataError, without the file's name, if it is not allowed.

    Args:
        width, height: in pixels.
        most: largest width x height.
        channels: samples of each pixel that are decoded together.
    """
    if width < 1 or height < 1:
        raise DataError("has no pixels")
    if width * height > most or max(width, height) > MAX_SIDE:
        raise DataError(
            f"has {width} x {height} pixels, above the limit of {most / 1e6:g} million in all (data.max_megapixels) "
            f"and {MAX_SIDE:,} a side: cut it into tiles"
        )
    if width * height * channels > MOST_SAMPLES * most:
        raise DataError(
            f"has {width} x {height} pixels of {channels} channels, above the limit of {MOST_SAMPLES} samples for each "
            f"of {most / 1e6:g} million pixels: cut it into tiles, or raise data.max_megapixels"
        )


def read_bytes(path: Path, most: int = MAX_PIXELS) -> bytes:
    """Read a file; raise DataError, without the file's name, if it is too large, and OSError if it is unreadable.

    Args:
        path: of the file.
        most: largest width x height of an image; files may have 20 bytes for each of these pixels.
    """
    limit = max(MAX_BYTES, 20 * most)
    if (size := path.stat().st_size) > limit:
        raise DataError(f"has {size / 1e9:.1f} GB, above the limit of {limit / 1e9:.0f} GB: cut it into tiles")
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


def turned_words(orientation: int) -> tuple[str, ...]:
    """Return what the data card says of an image that is turned by its orientation."""
    return ("EXIF orientation",) if orientation in range(2, 9) else ()
