"""Images that Pillow opens: JPEG, PNG, GIF, WebP, BMP, PNM, and those TIFF files that it reads correctly."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.data.decoding import isolation, png, png16
from harness.data.decoding.raw import ORIENTATION, Alpha, Colours, Opened, Plane, check_size, turn, turned_words
from harness.data.decoding.rules import ReadingRules
from harness.errors import DataError

# The formats of these suffixes. Pillow reads more formats, and starts another program for some of them.
SUFFIXES = frozenset(
    (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
)
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_ANIMATED = ("GIF", "PNG", "WEBP", "TIFF")  # formats whose frames have one size

_KINDS = {  # mode -> bits, colour
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
_ALPHA_MODES = ("RGBA", "RGBa", "LA", "La", "PA")


@contextmanager
def opened(data: bytes | Image.Image, rules: ReadingRules) -> Iterator[Opened]:
    """Open an image that Pillow reads, or one that a library has opened with it."""
    if isinstance(data, Image.Image):
        yield _opened(data, rules, None)
        return
    # Pillow has a limit of its own. Ours is checked from the header, too.
    if Image.MAX_IMAGE_PIXELS is not None and rules.max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = rules.max_pixels
    checked = png.checked(data) if data[:8] == png.SIGNATURE else None
    with Image.open(io.BytesIO(data if checked is None else checked.data), formats=_FORMATS) as image:
        if checked is not None and checked.bits == 16 and (image.mode != "I;16" or checked.key is not None):
            yield _deep_png(image, data, checked, rules)
        else:
            yield _opened(image, rules, checked)


def _deep_png(image: Image.Image, data: bytes, checked: png.Checked, rules: ReadingRules) -> Opened:
    """Open a PNG with 16 bits for each of several channels, which Pillow would reduce to 8 bits."""
    check_size(*image.size, rules.max_pixels)
    channels = png16.CHANNELS.get(data[25], 0) + (checked.key is not None)
    orientation = _orientation(image)

    def plane(number: int) -> Plane:
        samples = _fast(checked.data) if isolation.isolated and checked.key is None else None
        samples = png16.read(data) if samples is None else samples
        alpha: Alpha = "straight" if samples.shape[2] in (2, 4) else ""
        return Plane(turn(samples, orientation), alpha, 16, "unsigned", turned_words(orientation))

    return Opened(
        kind=f"16-bit {('', 'grey', 'grey+alpha', 'RGB', 'RGBA')[channels]} PNG",
        bits=16,
        channels=3 if channels > 2 else 1,
        colours="RGB" if channels > 2 else "grey",
        planes=1,
        plane=plane,
        images=int(getattr(image, "n_frames", 1)),
    )


def _fast(data: bytes) -> NDArray[np.uint16] | None:
    """Return the samples as a decoder written in C reads them; None if it is not installed, or does not read them."""
    try:
        import imagecodecs

        samples: NDArray[np.uint16] = imagecodecs.png_decode(data)
    except Exception:  # the slower decoder gives the reason
        return None
    if samples.dtype != np.uint16:
        return None
    return samples[..., None] if samples.ndim == 2 else samples


def _opened(image: Image.Image, rules: ReadingRules, checked: png.Checked | None) -> Opened:
    check_size(*image.size, rules.max_pixels)
    if image.mode not in _KINDS:
        raise DataError(f"has colour mode {image.mode}: convert it to grey or RGB")
    bits, colour = _KINDS[image.mode]
    name = {"MPO": "JPEG"}.get(image.format or "", image.format or "image")
    if image.mode == "I" and name == "PPM":
        bits, colour = 16, "grey"  # Pillow widens 16-bit PGM samples to 32
    frames = int(getattr(image, "n_frames", 1))
    planes = frames if name in _ANIMATED else 1  # the pictures in one JPEG file may have different sizes
    key = checked.key if checked is not None else None
    # The frames of an animation differ in mode, and must have the same channels if several are read.
    grey = image.mode in ("1", "L", "LA", "La") and (planes == 1 or rules.frames == "first")
    colours: Colours = "grey" if grey or bits > 8 else "RGB"

    def plane(number: int) -> Plane:
        if planes > 1 and image.tell() != number:
            image.seek(number)
        converted: tuple[str, ...] = (_CONVERTED[image.mode],) if image.mode in _CONVERTED else ()
        stored = _orientation(image)
        image.load()
        orientation = _orientation(image)  # 1 if Pillow has already turned the image, as it does with TIFF
        converted += turned_words(stored)
        alpha = "transparency" in image.info or image.mode in _ALPHA_MODES
        view = image
        if bits in (1, 8):
            target = (
                ("LA" if alpha else "L") if grey and "transparency" not in image.info else "RGBA" if alpha else "RGB"
            )
            view = image if image.mode == target else image.convert(target)
        samples = np.asarray(view)
        samples = samples.astype(np.uint16) if (name, bits) == ("PPM", 16) else samples
        samples = samples[..., None] if samples.ndim == 2 else samples
        if key is not None and checked is not None:
            scale = 255 // ((1 << min(checked.bits, 8)) - 1)  # of the bits that Pillow has widened
            hidden = (samples == np.array([value * scale for value in key])).all(axis=2)
            samples, alpha = np.dstack([samples, np.where(hidden, 0, 255).astype(np.uint8)]), True
        form = {"i": "signed", "f": "float"}.get(samples.dtype.kind, "unsigned")
        depth = 8 if bits == 1 else bits
        return Plane(turn(samples, orientation), "straight" if alpha else "", depth, form, converted)  # type: ignore[arg-type]

    return Opened(
        kind=f"{bits}-bit {colour} {name}",
        bits=bits,
        channels=1 if colours == "grey" else 3,
        colours=colours,
        planes=planes,
        plane=plane,
        images=frames,
    )


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1 if there is none, or if the metadata are damaged."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged metadata cause many kinds of errors
        return 1
