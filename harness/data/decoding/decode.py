"""Decoding: from an image file to pixels (height, width, 3). All rules for unusual kinds of files are here.

The rules, in this order: use the first frame; scale samples with more than 8 bits as `bit_depth` says; convert palette,
CMYK and 1-bit images; apply the EXIF orientation; composite alpha on the background; repeat grey in three channels.
Images of up to 8 bits are uint8; others become uint16 with full scale 65535.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from harness.config.data import BitDepth
from harness.data.decoding import png16, tiff
from harness.data.decoding.fit import Colour, Pixels, Resize, fit
from harness.data.decoding.raw import MAX_PIXELS, ORIENTATION, Raw, check_size, read_bytes, turn
from harness.errors import DataError

__all__ = ["SUFFIXES", "VERSION", "Colour", "Facts", "Pixels", "Resize", "decode", "fit", "quiet", "read"]

VERSION = 2  # of the pixels: raise it if a file decodes to other values
SUFFIXES = frozenset(
    (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
)


# The formats of these suffixes. Pillow reads more formats, and starts another program for some of them.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


@dataclass(frozen=True)
class Facts:
    """Facts about one image file. Width and height are in pixels, after the EXIF orientation."""

    width: int
    height: int
    kind: str  # such as "8-bit RGB JPEG" or "16-bit grey TIFF"
    frames: int = 1
    converted: tuple[str, ...] = ()  # what was done to it, as the data card shows it
    deep: bool = False  # whether its pixels have more than 8 bits


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Pillow's warnings about unusual metadata. Warning filters are global: enter this before threads start."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read(
    data: bytes | Image.Image, *, bit_depth: BitDepth = "dtype", background: Colour = (255, 255, 255)
) -> tuple[Pixels, Facts]:
    """Return the pixels (height, width, 3) at full size, uint8 or uint16, and the facts about the file.

    Args:
        data: the bytes of an image file, or an image that a library has opened.
        bit_depth: full scale of samples with more than 8 bits; see `DataConfig.bit_depth`.
        background: colour behind transparent pixels, 0 to 255.

    Raises:
        DataError: the file cannot be read. The message is the reason without the file's name.
    """
    try:
        raw = _samples(data)
    except DataError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # for damaged files, the decoders raise many kinds of errors
        raise DataError(_reason(error)) from None
    pixels = _to_rgb(raw, bit_depth, background)
    facts = Facts(
        width=pixels.shape[1],
        height=pixels.shape[0],
        kind=raw.kind,
        frames=raw.frames,
        converted=raw.converted + (("first frame of several",) if raw.frames > 1 else ()),
        deep=pixels.dtype == np.uint16,
    )
    return pixels, facts


def decode(
    path: Path,
    *,
    size: int | None = None,
    resize: Resize = "stretch",
    bit_depth: BitDepth = "dtype",
    background: Colour = (255, 255, 255),
) -> Pixels:
    """Return the pixels of one file: (size, size, 3), or (height, width, 3) if `size` is None.

    Raises:
        DataError: the file cannot be read as an image; the message has its name and the reason.
    """
    try:
        pixels, _ = read(read_bytes(path), bit_depth=bit_depth, background=background)
    except (DataError, OSError) as error:
        raise DataError(f"{path.name}: {error}") from None
    return pixels if size is None else fit(pixels, size, resize, background)


def _reason(error: Exception) -> str:
    """Return the reason why a decoder failed, for the user."""
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"has more than {MAX_PIXELS // 1_000_000} million pixels: cut it into tiles"
    if isinstance(error, UnidentifiedImageError):
        return "is not an image in a known format"
    text = " ".join(str(error).split())
    if any(sign in text for sign in ("truncated", "unexpected end", "failed to read")) or isinstance(error, EOFError):
        return "is truncated"
    return f"is damaged ({text[:120] or type(error).__name__})"


def _samples(data: bytes | Image.Image) -> Raw:
    if isinstance(data, Image.Image):
        return _from_pillow(data)
    if not data:
        raise DataError("is empty (0 bytes)")
    if data[:64].lstrip()[:1] == b"<":
        raise DataError("contains HTML or other text, not an image")
    if data[:4] in tiff.MAGIC:
        raw = tiff.read(data)
        if raw is not None:
            return raw
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        if png16.is_16_bit(data) and (image.mode != "I;16" or "transparency" in image.info):
            check_size(*image.size)
            samples = png16.read(data)
            kind = f"16-bit {('grey', 'grey+alpha', 'RGB', 'RGBA')[samples.shape[2] - 1]} PNG"
            return _turned(Raw(samples, samples.shape[2] in (2, 4), kind, 1, ()), _orientation(image))
        return _from_pillow(image)


# --- Pillow -------------------------------------------------------------------------------------------------

_PILLOW_KINDS = {  # mode -> bits, colour
    "1": (1, "grey"),
    "L": (8, "grey"),
    "P": (8, "palette"),
    "PA": (8, "palette"),
    "RGB": (8, "RGB"),
    "RGBX": (8, "RGB"),
    "RGBA": (8, "RGBA"),
    "RGBa": (8, "RGBA"),
    "LA": (8, "grey+alpha"),
    "La": (8, "grey+alpha"),
    "CMYK": (8, "CMYK"),
    "YCbCr": (8, "RGB"),
    "HSV": (8, "HSV"),
    "I;16": (16, "grey"),
    "I;16B": (16, "grey"),
    "I;16L": (16, "grey"),
    "I": (32, "integer grey"),
    "F": (32, "float grey"),
}
_CONVERTED = {"P": "palette to RGB", "PA": "palette to RGB", "CMYK": "CMYK to RGB", "1": "1-bit to 8-bit"}


def _from_pillow(image: Image.Image) -> Raw:
    check_size(*image.size)
    if image.mode not in _PILLOW_KINDS:
        raise DataError(f"has colour mode {image.mode}: convert it to grey or RGB")
    bits, colour = _PILLOW_KINDS[image.mode]
    name = {"MPO": "JPEG"}.get(image.format or "", image.format or "image")
    if image.mode == "I" and name == "PPM":
        bits, colour = 16, "grey"  # Pillow widens 16-bit PGM samples to 32
    frames = int(getattr(image, "n_frames", 1))
    converted: tuple[str, ...] = (_CONVERTED[image.mode],) if image.mode in _CONVERTED else ()
    stored = _orientation(image)
    image.load()
    orientation = _orientation(image)  # 1 if Pillow has already turned the image, as it does with TIFF
    if orientation != stored:
        converted = (*converted, "EXIF orientation")
    transparent = "transparency" in image.info
    alpha = transparent or image.mode in ("RGBA", "RGBa", "LA", "La", "PA")
    if bits in (1, 8):
        grey = image.mode in ("1", "L", "LA", "La") and not transparent
        target = ("LA" if alpha else "L") if grey else ("RGBA" if alpha else "RGB")
        image = image if image.mode == target else image.convert(target)
    samples = np.asarray(image)
    samples = samples.astype(np.uint16) if (name, bits) == ("PPM", 16) else samples
    samples = samples[..., None] if samples.ndim == 2 else samples
    return _turned(Raw(samples, alpha, f"{bits}-bit {colour} {name}", frames, converted), orientation)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1 if there is none, or if the metadata are damaged."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged metadata cause many kinds of errors
        return 1


def _turned(raw: Raw, orientation: int) -> Raw:
    """Turn the samples by the EXIF orientation, and record what is done to them for the data card."""
    done = (("EXIF orientation",) if orientation in range(2, 9) else ()) + (("alpha composited",) if raw.alpha else ())
    return Raw(turn(raw.samples, orientation), raw.alpha, raw.kind, raw.frames, raw.converted + done)


# --- to three channels --------------------------------------------------------------------------------------


def _to_rgb(raw: Raw, bit_depth: BitDepth, background: Colour) -> Pixels:
    """Convert samples of any depth to pixels (height, width, 3): uint8 for up to 8 bits, otherwise uint16."""
    samples = raw.samples
    if samples.dtype == np.uint8:
        if not raw.alpha:
            return np.ascontiguousarray(np.broadcast_to(samples, (*samples.shape[:2], 3)))
        share = samples[..., -1:].astype(np.float32) / 255
        mixed = samples[..., :-1] * share + np.asarray(background, np.float32) * (1 - share)
        return np.rint(mixed).astype(np.uint8)
    fractions = _fractions(samples[..., :-1] if raw.alpha else samples, bit_depth)
    if raw.alpha:
        top = 1.0 if samples.dtype.kind == "f" else np.iinfo(samples.dtype).max
        share = np.clip(samples[..., -1:].astype(np.float32) / top, 0, 1)
        fractions = np.asarray(fractions * share + np.asarray(background) / 255 * (1 - share), dtype=np.float32)
    full, dtype = (255, np.uint8) if bit_depth == 8 else (65535, np.uint16)
    whole = np.rint(fractions * full).astype(dtype)
    return np.ascontiguousarray(np.broadcast_to(whole, (*whole.shape[:2], 3)))


def _fractions(colours: NDArray[Any], bit_depth: BitDepth) -> NDArray[np.float32]:
    """Return colour samples with more than 8 bits as fractions of full scale, in [0, 1]."""
    floating = colours.dtype.kind == "f"
    low, high = colours.min(), colours.max()
    if floating and not (np.isfinite(low) and np.isfinite(high)):
        raise DataError("has values that are not finite")
    if bit_depth in ("minmax", "used"):
        spread = float(high) - float(low)
        return np.asarray((colours.astype(np.float64) - float(low)) / (spread or 1.0), dtype=np.float32)
    if bit_depth == "dtype":
        if floating:
            full, rule = 1.0, "floats must lie in 0 to 1 with bit_depth: dtype"
        elif colours.dtype == np.uint16:
            full, rule = 65535.0, ""
        else:
            raise DataError(
                f"has {colours.dtype} samples, whose full scale is unknown: give bit_depth as a number or minmax"
            )
    else:
        full, rule = (
            float(2 ** int(bit_depth) - 1),
            f"samples must lie in 0 to {2 ** int(bit_depth) - 1} with bit_depth: {bit_depth}",
        )
    if low < 0 or high > full:
        raise DataError(f"has values from {low:g} to {high:g}: {rule}; give bit_depth as a number that fits, or minmax")
    return np.asarray(colours.astype(np.float64) / full, dtype=np.float32)
