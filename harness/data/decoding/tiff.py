"""A reader of TIFF files with more than 8 bits. It also refuses files that have too many channels."""

from __future__ import annotations

import io
import logging
import lzma
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from harness.data.decoding.raw import MAX_PIXELS, ORIENTATION, Raw, check_size, turn
from harness.errors import DataError

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# tifffile prints unusual facts about a file on standard error. The scan lists the files that cannot be read.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


def read(data: bytes) -> Raw | None:
    """Read a TIFF file with more than 8 bits; return None for a file that Pillow reads correctly.

    Raises:
        DataError: the file is too large, or has a form that is not supported, such as too many channels.
    """
    try:
        tiff = tifffile.TiffFile(io.BytesIO(data))
    except Exception:  # Pillow may be able to read it; if not, it gives the reason
        return None
    with tiff:
        page = tiff.pages.first
        check_size(page.imagewidth, page.imagelength)
        alpha = _check_channels(tiff, page)
        bits, layout = page.bitspersample, int(page.sampleformat)
        if not isinstance(bits, int):
            raise DataError(f"has channels of different depths ({bits} bits)")
        _check_segments(page, data, bits)
        if bits <= 8:
            return None
        frames = len(tiff.pages)
        samples = _page_samples(page, data)
        colours = samples.shape[2] - alpha
        if int(page.photometric) == 0:  # the value 0 means white
            samples = _inverted(samples, bits, layout)
        form = {1: "", 2: "signed ", 3: "float "}.get(layout)
        if form is None:
            raise DataError(f"has sample format {layout}: save it as unsigned whole numbers or floats")
        tag = page.tags.get(ORIENTATION)
        orientation = int(tag.value) if tag is not None else 1
        colour = form + ("RGB" if colours == 3 else "grey") + ("+alpha" if alpha else "")
        converted = (["EXIF orientation"] if orientation in range(2, 9) else []) + (
            ["alpha composited"] if alpha else []
        )
        return Raw(turn(samples, orientation), alpha, f"{bits}-bit {colour} TIFF", frames, tuple(converted))


# By TIFF's number of the compression: those that tifffile unpacks without a limit on the size.
_UNPACKERS: dict[int, Callable[[], Any]] = {
    8: zlib.decompressobj,
    32946: zlib.decompressobj,
    34925: partial(lzma.LZMADecompressor, memlimit=1 << 28),
}


def _check_segments(page: Any, data: bytes, bits: int) -> None:
    """Refuse a page whose strips or tiles would need far more memory than its pixels.

    Tiles may extend beyond the image, a page may be a volume, and a compressed segment may unpack to any size.
    """
    if page.imagedepth > 1 or page.tiledepth > 1:
        raise DataError("contains a volume, not an image: save each of its layers as an image")
    if page.is_tiled:
        rows, columns = page.tilelength, page.tilewidth
        across, down = -(-page.imagewidth // columns), -(-page.imagelength // rows)
        if across * columns * down * rows > 2 * MAX_PIXELS:
            raise DataError(
                f"has tiles of {columns} x {rows} pixels for an image of {page.imagewidth} x {page.imagelength}: save "
                "it with smaller tiles"
            )
    else:
        rows, columns = min(page.rowsperstrip, page.imagelength), page.imagewidth
    unpacker = _UNPACKERS.get(int(page.compression))
    if unpacker is None or bits <= 8:  # Pillow unpacks into memory of the right size
        return
    samples = page.samplesperpixel if int(page.planarconfig) == 1 else 1
    most = rows * -(-columns * samples * bits // 8)
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        if len(unpacker().decompress(data[offset : offset + count], most + 1)) > most:
            raise DataError("is damaged (a compressed part unpacks to more bytes than its pixels have)")


def _check_channels(tiff: tifffile.TiffFile, page: Any) -> bool:
    """Return whether the page has alpha; raise DataError if its colours are neither grey nor RGB."""
    extras = [int(extra) for extra in page.extrasamples]
    alpha = len(extras) == 1 and extras[0] in (1, 2)
    colours = page.samplesperpixel - alpha
    photometric = int(page.photometric)
    if photometric == 5 and page.samplesperpixel == 4 and page.bitspersample == 8:  # CMYK
        return False
    if colours == 3 and photometric in (2, 6):  # RGB, YCbCr
        return alpha
    if colours == 1 and photometric in (0, 1, 3):  # grey, palette
        axes = dict(zip(tiff.series[0].axes, tiff.series[0].shape, strict=False)) if len(tiff.pages) > 1 else {}
        if axes.get("C", 1) > 3:
            raise DataError(f"has {axes['C']} channels, but at most three can be read: save the ones you need as RGB")
        return alpha
    names = {5: "CMYK beyond 8 bits", 8: "CIELab colours"}
    what = names.get(photometric, f"{page.samplesperpixel} channels that are declared as neither grey, RGB nor alpha")
    raise DataError(f"has {what}, but only grey and RGB can be read: save it as one of them")


def _page_samples(page: Any, data: bytes) -> NDArray[Any]:
    """Return the samples (height, width, channels) of the first page."""
    try:
        samples: NDArray[Any] = page.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error) and "requires" not in str(error):
            raise
        # tifffile needs another package for this compression. Pillow reads it, but keeps all bits only for grey images.
        with Image.open(io.BytesIO(data)) as image:
            if image.mode not in ("I;16", "I;16B", "I;16L", "F", "I"):
                name = getattr(page.compression, "name", page.compression)
                raise DataError(
                    f"is a {page.bitspersample}-bit TIFF of several channels with {name} compression, "
                    "which needs the package imagecodecs: install it, or save the image with deflate compression"
                ) from None
            samples = np.asarray(image)
    if samples.ndim == 3 and int(page.planarconfig) == 2:  # each channel is stored as a plane of its own
        samples = np.moveaxis(samples, 0, -1)
    samples = samples.reshape(page.imagelength, page.imagewidth, -1)
    return samples.astype(samples.dtype.newbyteorder("="))


def _inverted(samples: NDArray[Any], bits: int, layout: int) -> NDArray[Any]:
    if layout != 1:
        return 1.0 - samples.astype(np.float32)
    return ((1 << bits) - 1 - samples.astype(np.int64)).astype(samples.dtype)
