"""TIFF: what its tags say of channels, alpha, palettes and scales, checked before any pixel is decoded."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from harness.data.decoding.raw import ORIENTATION, Alpha, Colours, Opened, Plane, check_size, turn, turned_words
from harness.data.decoding.rules import ReadingRules
from harness.data.decoding.tiff_layout import Layout, layout_of
from harness.data.decoding.tiff_samples import PALETTE, Stored, check_segments, form_of, photometric_of, stored_samples
from harness.errors import DataError

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# tifffile prints unusual facts about a file on standard error. The scan lists the files that cannot be read.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

_CMYK = 5
_UNSUPPORTED = {
    4: "a transparency mask",
    _CMYK: "CMYK beyond 8 bits",
    8: "CIELab colours",
    9: "ICCLab colours",
    10: "ITULab colours",
    32803: "the colour filter array of a raw camera image",
    32844: "LogL colours",
    32845: "LogLuv colours",
    34892: "the linear samples of a raw camera image",
}
_DNG_VERSION, _SUB_IFDS = 50706, 330


@contextmanager
def opened(data: bytes, rules: ReadingRules) -> Iterator[Opened | None]:
    """Open a TIFF file; yield None for one that Pillow reads correctly, or that tifffile cannot parse.

    Raises:
        DataError: the file is too large, or is of a kind that is not supported.
    """
    try:
        # Other files that OME metadata name are not opened.
        tiff = tifffile.TiffFile(io.BytesIO(data), _multifile=False)
        page = tiff.pages.first
    except Exception:  # Pillow may be able to read it; if not, it gives the reason
        yield None
        return
    with tiff:
        yield _opened(tiff, page, data, rules)


def _opened(tiff: Any, page: Any, data: bytes, rules: ReadingRules) -> Opened | None:
    check_size(page.imagewidth, page.imagelength, rules.max_pixels)
    photometric, bits = photometric_of(page), page.bitspersample
    if not isinstance(bits, int):
        raise DataError(f"has channels of different depths ({bits} bits), which is not supported: save it with one")
    if _DNG_VERSION in page.tags or (page.subfiletype & 1 and _SUB_IFDS in page.tags):
        raise DataError("is a raw camera image, of which only a preview could be read: develop it to PNG or TIFF")
    if photometric == _CMYK and page.samplesperpixel == 4 and bits == 8:
        check_segments(page, data, rules.max_pixels, unpacked=False)
        return None
    if photometric in _UNSUPPORTED or photometric not in (0, 1, 2, PALETTE, 6):
        what = _UNSUPPORTED.get(photometric, f"colours of TIFF's kind {photometric}")
        raise DataError(f"has {what}, but only grey and RGB are supported: save it as one of them")
    if page.imagedepth > 1 or page.tiledepth > 1:
        raise DataError("contains a volume, not an image: save each of its layers as an image")
    form = form_of(page)
    layout = layout_of(tiff, page)
    alpha, inside = _alpha(page, photometric)
    if layout.untold and rules.channels is not None and inside == 1 and not alpha:
        layout = layout.as_channels()  # the study says that there are channels, and nothing else can be one
    if layout.channels > 1 and alpha:
        alpha, inside = "", page.samplesperpixel
    palette = photometric == PALETTE and layout.channels == 1 and not alpha and inside == 1
    channels = 3 if palette else layout.channels * inside
    check_size(page.imagewidth, page.imagelength, rules.max_pixels, channels)
    colours: Colours = (
        "grey" if channels == 1 else "RGB" if palette or _is_rgb(layout, photometric, channels) else "channels"
    )
    tag = page.tags.get(ORIENTATION)
    orientation = int(tag.value) if tag is not None else 1
    table = _colour_table(page) if palette else None

    def plane(number: int) -> Plane:
        parts, depth, kind = [], bits, alpha
        for channel in range(layout.channels):
            found = _page(layout, layout.position(number, channel), data, photometric, orientation, rules)
            parts.append(found.samples)
            depth, kind = found.bits, "straight" if found.straight else kind
        samples = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
        done: tuple[str, ...] = ("1-bit to 8-bit",) if bits == 1 and not palette else ()
        if table is not None:
            if samples.max(initial=0) >= len(table):
                raise DataError("is damaged (a pixel has a number that the palette lacks)")
            samples, done = table[samples[..., 0]], ("palette to RGB",)
            depth = samples.dtype.itemsize * 8
        done += turned_words(orientation)
        return Plane(samples, kind, depth, "unsigned" if table is not None else form, done)

    words = _words(colours, channels, alpha, palette, bits)
    words = words if form == "unsigned" or palette else f"{form} {words}"
    return Opened(
        kind=f"{bits}-bit {words} TIFF",
        bits=bits,
        channels=channels,
        colours=colours,
        planes=layout.planes,
        plane=plane,
        images=layout.planes + layout.others,
    )


def _alpha(page: Any, photometric: int) -> tuple[Alpha, int]:
    """Return the kind of alpha of a page, and how many of its samples are colours or channels."""
    extras = [int(extra) for extra in page.extrasamples]
    colours = 3 if photometric in (2, 6) else 1
    if len(extras) == 1 and extras[0] in (1, 2) and page.samplesperpixel == colours + 1:
        return ("premultiplied" if extras[0] == 1 else "straight"), colours
    return "", int(page.samplesperpixel)


def _is_rgb(layout: Layout, photometric: int, channels: int) -> bool:
    return layout.channels == 1 and photometric in (2, 6) and channels == 3


def _words(colours: Colours, channels: int, alpha: Alpha, palette: bool, bits: int) -> str:
    if palette:
        return "palette"
    name = f"{channels}-channel" if colours == "channels" else colours
    return name + ("" if not alpha else "A" if (name, bits) == ("RGB", 8) else "+alpha")


def _page(
    layout: Layout, position: int, data: bytes, photometric: int, orientation: int, rules: ReadingRules
) -> Stored:
    """Return the samples of one page, (height, width, samples), turned, with 0 as black."""
    page = layout.pages[position if layout.contiguous is None else 0]
    if page is None:
        raise DataError("is damaged (a plane that its metadata name is missing)")
    key = page.keyframe
    if layout.contiguous is not None:
        found = Stored(_contiguous(key, data, layout.contiguous, position), int(key.bitspersample), False, False)
    else:
        found = stored_samples(page, data, rules.max_pixels)
    samples = found.samples
    if (photometric == 0) != found.inverted:  # the value 0 means white
        samples = _inverted(samples, found.bits, _alpha(key, photometric)[1])
    return replace(found, samples=samples if found.turned else turn(samples, orientation))


def _contiguous(key: Any, data: bytes, start: int, position: int) -> NDArray[Any]:
    """Return the samples of an image in a series that is stored without a page for each."""
    size = key.imagelength * key.imagewidth * key.samplesperpixel
    dtype = np.dtype(key.dtype).newbyteorder(key.parent.byteorder)
    place = start + position * size * dtype.itemsize
    if place + size * dtype.itemsize > len(data):
        raise DataError("is truncated")
    samples = np.frombuffer(data, dtype, size, place).astype(dtype.newbyteorder("="))
    if int(key.planarconfig) == 2:
        samples = np.moveaxis(samples.reshape(key.samplesperpixel, key.imagelength, key.imagewidth), 0, -1)
    return samples.reshape(key.imagelength, key.imagewidth, key.samplesperpixel)


def _inverted(samples: NDArray[Any], bits: int, colours: int) -> NDArray[Any]:
    """Return the samples with the colours turned from "white is zero" to "black is zero"; alpha stays."""
    out = samples.copy()
    if samples.dtype.kind == "f":
        out[..., :colours] = 1 - samples[..., :colours]
    elif samples.dtype.kind == "i":
        raise DataError(
            'has signed samples of which 0 means white, which is not supported: save it with "black is zero"'
        )
    else:
        out[..., :colours] = ((1 << bits) - 1) - samples[..., :colours].astype(np.int64)
    return out


def _colour_table(page: Any) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return the palette (colours, 3): uint8 if that loses nothing, otherwise uint16."""
    tag = page.tags.get(320)
    values = np.asarray(tag.value if tag is not None else [], np.int64).ravel()
    if not len(values) or len(values) % 3 or values.min() < 0 or values.max() > 65535:
        raise DataError("is damaged (it has a palette without colours)")
    table = values.reshape(3, -1).T
    if values.max() < 256:  # some programs store colours of 8 bits, which the standard does not allow
        return table.astype(np.uint8)
    if not (table % 257).any():
        return (table // 257).astype(np.uint8)
    if not (table & 255).any():  # other programs only shift the eight bits
        return (table >> 8).astype(np.uint8)
    return table.astype(np.uint16)
