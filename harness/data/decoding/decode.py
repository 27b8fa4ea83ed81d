"""Decoding: from an image file to pixels (height, width, 3). `read` is the one way from a file to pixels.

The steps, in this order: refuse kinds that are not read (signatures.py); open the file (tiff.py, pillow.py); pick or
mix channels (channels.py); combine frames, scale samples with more than 8 bits as `bit_depth` says, composite alpha on
the background, and repeat grey in three channels (scaling.py).
Images of up to 8 bits are uint8; others become uint16 with full scale 65535.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from harness.data.decoding import pillow, tiff
from harness.data.decoding.channels import mixture_of
from harness.data.decoding.fit import Resize, fit
from harness.data.decoding.pillow import SUFFIXES
from harness.data.decoding.raw import Opened, Plane, read_bytes
from harness.data.decoding.rules import VERSION, ReadingRules
from harness.data.decoding.scaling import Pixels, scaled
from harness.data.decoding.signatures import refuse_foreign
from harness.errors import DataError

__all__ = ["SUFFIXES", "VERSION", "Facts", "Pixels", "Resize", "count_frames", "decode", "fit", "quiet", "read"]

_MOST_WORK = 100  # times the largest image: pixels of all frames that are combined into one image


@dataclass(frozen=True)
class Facts:
    """Facts about one image file. Width and height are in pixels, after the EXIF orientation."""

    width: int
    height: int
    kind: str  # such as "8-bit RGB JPEG" or "16-bit grey TIFF"
    frames: int = 1
    converted: tuple[str, ...] = ()  # what was done to it, as the data card shows it
    deep: bool = False  # whether its pixels have more than 8 bits
    channels: int = 3  # in the file, without alpha
    bits: int = 8  # of each sample in the file
    sample_type: Literal["unsigned", "signed", "float"] = "unsigned"
    low: float = 0.0  # smallest and largest sample value that was used, before scaling and without alpha
    high: float = 0.0


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Pillow's warnings about unusual metadata. Warning filters are global: enter this before threads start."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read(
    data: bytes | Image.Image, rules: ReadingRules | None = None, frame: int | None = None
) -> tuple[Pixels, Facts]:
    """Return the pixels at full size, uint8 or uint16, and the facts about the file.

    Args:
        data: the bytes of an image file, or an image that a library has opened.
        rules: how to read it; the defaults without it.
        frame: number of the frame to read, from 0; without it, as `rules.frames` says (the first one if that is each).

    Returns:
        Pixels (height, width, 3), or (height, width, channels of the file) if the rules take all channels.

    Raises:
        DataError: the file cannot be read. The message is the reason without the file's name.
    """
    rules = rules or ReadingRules()
    try:
        with _opened(data, rules) as opened:
            return _read(opened, rules, frame)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # for damaged files, the decoders raise many kinds of errors
        raise DataError(_reason(error, rules)) from None


def count_frames(data: bytes | Image.Image, rules: ReadingRules | None = None) -> int:
    """Return how many frames `read` can return one by one; only headers are read.

    Raises:
        DataError: as `read`.
    """
    rules = rules or ReadingRules()
    try:
        with _opened(data, rules) as opened:
            return opened.planes
    except (DataError, MemoryError):
        raise
    except Exception as error:
        raise DataError(_reason(error, rules)) from None


def decode(
    path: Path, rules: ReadingRules | None = None, *, size: int | None = None, resize: Resize = "stretch"
) -> Pixels:
    """Return the pixels of one file: (size, size, channels), or (height, width, channels) if `size` is None.

    Raises:
        DataError: the file cannot be read as an image; the message has its name and the reason.
    """
    rules = rules or ReadingRules()
    try:
        pixels, _ = read(read_bytes(path, rules.max_pixels), rules)
    except (DataError, OSError) as error:
        raise DataError(f"{path.name}: {error}") from None
    return pixels if size is None else fit(pixels, size, resize, rules.background)


@contextmanager
def _opened(data: bytes | Image.Image, rules: ReadingRules) -> Iterator[Opened]:
    if isinstance(data, bytes):
        refuse_foreign(data)
        if data[:4] in tiff.MAGIC:
            with tiff.opened(data, rules) as found:
                if found is not None:
                    yield found
                    return
    with pillow.opened(data, rules) as opened:
        yield opened


def _read(opened: Opened, rules: ReadingRules, frame: int | None) -> tuple[Pixels, Facts]:
    mixture = mixture_of(opened, rules)
    if frame is not None and not 0 <= frame < opened.planes:
        raise DataError(f"has {opened.planes} frames (from 0), but frame {frame} is asked for")
    first = frame if frame is not None else 0
    several = frame is None and rules.frames in ("max", "mean") and opened.planes > 1
    forms: list[Literal["unsigned", "signed", "float"]] = []
    sizes: list[int] = []

    def load(number: int) -> Plane:
        plane = opened.plane(number)
        forms.append(plane.form)
        sizes.append(plane.samples.shape[0] * plane.samples.shape[1])
        if sizes[0] * opened.planes > _MOST_WORK * rules.max_pixels and several:
            raise DataError(
                f"has {opened.planes} frames of {sizes[0] / 1e6:g} million pixels, more than can be combined: choose "
                "data.frames: first, or raise data.max_megapixels"
            )
        return plane

    found = scaled(load, list(range(opened.planes)) if several else [first], mixture, rules)
    said = list(found.converted)
    if opened.colours == "channels" and rules.channels is None and opened.channels == 3:
        said.append("three channels as red, green and blue")
    if opened.images > 1 and not several and frame is None:
        said.append("first frame of several")
    facts = Facts(
        width=found.pixels.shape[1],
        height=found.pixels.shape[0],
        kind=opened.kind,
        frames=opened.images,
        converted=tuple(said),
        deep=found.pixels.dtype == np.uint16,
        channels=opened.channels,
        bits=opened.bits,
        sample_type=forms[0],
        low=found.low,
        high=found.high,
    )
    return found.pixels, facts


def _reason(error: Exception, rules: ReadingRules) -> str:
    """Return the reason why a decoder failed, for the user."""
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"has more than {rules.max_megapixels:g} million pixels (data.max_megapixels): cut it into tiles"
    if isinstance(error, UnidentifiedImageError):
        return "is not an image in a known format"
    text = " ".join(str(error).split())
    signs = ("truncated", "unexpected end", "failed to read")
    if isinstance(error, EOFError) or any(sign in text.lower() for sign in signs):
        return "is truncated"
    return f"is damaged ({text[:120] or type(error).__name__})"
