"""Samples of one page of a TIFF file as they are stored, for every compression and number of bits.

Each page is decoded by the first of these that can: this module (packed bits), tifffile alone, Pillow, and tifffile
with the package imagecodecs, whose decoders are written in C and are used only for what the others do not read.
"""

from __future__ import annotations

import io
import lzma
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from harness.data.decoding.raw import ORIENTATION, Form
from harness.errors import DataError

PALETTE = 3  # TIFF's number of this photometric interpretation

# By TIFF's number of the compression: those that tifffile unpacks without a limit on the size.
_UNPACKERS: dict[int, Callable[[], Any]] = {
    8: zlib.decompressobj,
    32946: zlib.decompressobj,
    34925: partial(lzma.LZMADecompressor, memlimit=1 << 28),
}
_NONE, _LZW, _PACKBITS = 1, 5, 32773
_OWN = frozenset((_NONE, *_UNPACKERS))  # tifffile needs no other package for them
_OF_BYTES = frozenset((*_OWN, _LZW, _PACKBITS, 50000, 34926))  # they unpack to bytes, whatever the bytes mean
_WHOLE_BITS = (8, 16, 32, 64)
_PILLOW_ONLY = frozenset((2, 3, 4, _LZW, 6, 7, _PACKBITS))  # if Pillow fails at one of these, the file is damaged

# Pillow's modes that are the stored samples: bands, bits.
_PILLOW_MODES = {
    "1": (1, 1),
    "L": (1, 8),
    "P": (1, 8),
    "LA": (2, 8),
    "La": (2, 8),
    "RGB": (3, 8),
    "RGBA": (4, 8),
    "RGBa": (4, 8),
    "RGBX": (4, 8),
    "I;16": (1, 16),
    "I;16B": (1, 16),
    "I;16L": (1, 16),
    "F": (1, 32),
}


@dataclass(frozen=True)
class Stored:
    """Samples of one page, (height, width, samples)."""

    samples: NDArray[Any]
    bits: int  # of the scale
    inverted: bool  # whether "white is zero" has been turned already
    turned: bool  # whether the orientation has been applied already
    straight: bool = False  # whether premultiplied alpha has been divided out already


def photometric_of(page: Any) -> int:
    """Return TIFF's number of the photometric interpretation; the usual one if the file does not name any."""
    if 262 in page.tags:
        return int(page.photometric)
    if 320 in page.tags:  # it has a colour map
        return PALETTE
    return 2 if page.samplesperpixel >= 3 else 1


def form_of(page: Any) -> Form:
    """Return whether samples are unsigned, signed or floats."""
    layout = int(page.sampleformat)
    if layout not in (1, 2, 3, 4):  # 4 means that nothing is known, for which unsigned is the custom
        raise DataError(
            f"has sample format {layout} (complex numbers), which is not supported: save it as whole numbers or floats"
        )
    return "signed" if layout == 2 else "float" if layout == 3 else "unsigned"


def stored_samples(page: Any, data: bytes, most: int) -> Stored:
    """Return the samples of one page.

    Args:
        page: tifffile's page or frame; its size has been checked.
        data: the bytes of the file.
        most: largest width x height of an image.

    Raises:
        DataError: a package is missing for its compression, or its kind is not supported, or it is damaged.
    """
    key = page.keyframe
    compression, bits = int(key.compression), int(key.bitspersample)
    packed = bits not in _WHOLE_BITS and form_of(key) != "float"
    # Pillow ignores a predictor beside all compressions but these.
    pillow = (not packed or bits in (1, 2, 4)) and (int(key.predictor) == 1 or compression in (_LZW, 50000))
    direct = compression in _OWN
    check_segments(page, data, most, unpacked=direct)
    if packed and direct:
        return Stored(_unpacked(page, data, bits), bits, inverted=False, turned=False)
    divides = int(key.samplesperpixel) > 1 and 1 in map(int, key.extrasamples)  # Pillow does, and rounds
    if not direct and pillow and not divides and (found := _by_pillow(page, data)) is not None:
        return found
    if packed and compression in _OF_BYTES:
        return Stored(_unpacked(page, data, bits), bits, inverted=False, turned=False)
    try:
        samples: NDArray[Any] = page.asarray(maxworkers=1)
    except (ValueError, NotImplementedError, ImportError, KeyError) as error:
        if divides and pillow and (found := _by_pillow(page, data)) is not None:
            return replace(found, straight=True)
        raise _undecoded(key, error) from None
    if samples.ndim == 3 and int(key.planarconfig) == 2:  # each channel is stored as a plane of its own
        samples = np.moveaxis(samples, 0, -1)
    samples = samples.reshape(key.imagelength, key.imagewidth, -1)
    return Stored(samples.astype(samples.dtype.newbyteorder("="), copy=False), bits, inverted=False, turned=False)


def check_segments(page: Any, data: bytes, most: int, *, unpacked: bool) -> None:
    """Refuse a page whose strips or tiles would need far more memory than its pixels, or lie beyond the file's end.

    Tiles may extend beyond the image, and a compressed segment may unpack to any size.
    """
    key = page.keyframe
    if key.is_tiled:
        rows, columns = key.tilelength, key.tilewidth
        across, down = -(-key.imagewidth // columns), -(-key.imagelength // rows)
        if across * columns * down * rows > 2 * most:
            raise DataError(
                f"has tiles of {columns} x {rows} pixels for an image of {key.imagewidth} x {key.imagelength}: save "
                "it with smaller tiles"
            )
    else:
        rows, columns = min(key.rowsperstrip, key.imagelength), key.imagewidth
    samples = key.samplesperpixel if int(key.planarconfig) == 1 else 1
    largest = rows * -(-columns * samples * key.bitspersample // 8)
    compression = int(key.compression)
    unpacker = _UNPACKERS.get(compression) if unpacked else None
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        if compression != _NONE and offset + count > len(data):
            raise DataError("is truncated")
        if unpacker is not None and len(unpacker().decompress(data[offset : offset + count], largest + 1)) > largest:
            raise DataError("is damaged (a compressed part unpacks to more bytes than its pixels have)")
        if compression == _PACKBITS and count > 2 * largest + 128:
            raise DataError("is damaged (a compressed part has more bytes than its pixels)")
        inner = _size_inside(compression, data[offset : offset + min(count, 4096)])
        if inner is not None and inner[0] * inner[1] > 4 * rows * columns:
            raise DataError("is damaged (a compressed part has more pixels than its place)")


def _size_inside(compression: int, start: bytes) -> tuple[int, int] | None:
    """Return (width, height) that a compressed segment names itself, for kinds whose decoder would obey it."""
    if compression in (33003, 33004, 33005, 34712) and (place := start.find(b"\xff\x4f\xff\x51")) >= 0:
        right, bottom, left, top = struct.unpack_from(">IIII", start.ljust(place + 24, b"\0"), place + 8)
        return right - left, bottom - top
    if compression == 34933 and start[:4] == b"\x89PNG" and len(start) >= 24:
        width, height = struct.unpack_from(">II", start, 16)
        return width, height
    return None


def _undecoded(page: Any, error: Exception) -> Exception:
    """Return the error for the user: a missing package, or a kind that is not supported; otherwise the same error."""
    text = str(error)
    name = getattr(page.compression, "name", str(int(page.compression)))
    if isinstance(error, ImportError) or "imagecodecs" in text or "requires" in text:
        return DataError(
            f"is a {page.bitspersample}-bit TIFF with {name} compression, which needs the package imagecodecs: install "
            "it (pip install 'finetune-harness[tiff]'), or save the image with deflate compression"
        )
    if any(sign in text for sign in ("COMPRESSION", "not supported")) or isinstance(error, NotImplementedError):
        return DataError(
            f"is a {page.bitspersample}-bit TIFF with {name} compression of a kind that is not supported: save it "
            "with deflate compression"
        )
    return error


# --- packed bits --------------------------------------------------------------------------------------------


def _unpacked(page: Any, data: bytes, bits: int) -> NDArray[Any]:
    """Return samples of 1 to 31 bits, which are packed without gaps in each row, the highest bit first."""
    key = page.keyframe
    if not 1 <= bits <= 31:
        raise DataError(f"has {bits}-bit samples, which are not supported: save them with 8 or 16 bits")
    if int(key.predictor) != 1:
        raise DataError(f"has {bits}-bit samples with a predictor, which is not supported: save it without")
    height, width, planar = key.imagelength, key.imagewidth, int(key.planarconfig) == 2
    inside = 1 if planar else key.samplesperpixel
    if key.is_tiled:
        rows, columns = key.tilelength, key.tilewidth
    else:
        rows, columns = min(key.rowsperstrip, height), width
    across, down = -(-width // columns), -(-height // rows)
    dtype = np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32
    out = np.zeros((height, width, key.samplesperpixel), dtype)
    if len(page.dataoffsets) < across * down * (key.samplesperpixel if planar else 1):
        raise DataError("is damaged (parts of its pixels are missing)")
    line = -(-columns * inside * bits // 8)
    try:
        unpack = tifffile.TIFF.DECOMPRESSORS[int(key.compression)]
    except (KeyError, ImportError) as error:
        raise _undecoded(key, error) from None
    for index, (offset, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=False)):
        plane, place = divmod(index, across * down)
        top, left = place // across * rows, place % across * columns
        if plane >= (key.samplesperpixel if planar else 1):
            break
        here = rows if key.is_tiled else min(rows, height - top)
        body = data[offset : offset + (here * line if int(key.compression) == _NONE else count)]
        if int(key.fillorder) == 2:
            body = bytes(_REVERSED[np.frombuffer(body, np.uint8)])
        body = body if int(key.compression) == _NONE else bytes(unpack(body, out=here * line))
        if len(body) < here * line:
            raise DataError("is truncated")
        block = np.frombuffer(body, np.uint8, here * line).reshape(here, line)
        deep, wide = min(here, height - top), min(columns, width - left)
        part = slice(plane, plane + 1) if planar else slice(None)
        for row in range(0, deep, 256):  # a bit takes eight times its room on the way
            some = _numbers(block[row : min(row + 256, deep)], columns, inside, bits)[:, :wide]
            out[top + row : top + row + len(some), left : left + wide, part] = some
    return out


_REVERSED = np.array([int(f"{byte:08b}"[::-1], 2) for byte in range(256)], np.uint8)


def _numbers(block: NDArray[np.uint8], columns: int, samples: int, bits: int) -> NDArray[np.uint32]:
    """Return (rows, columns, samples) numbers of rows of bytes."""
    spread = np.unpackbits(block, axis=1)[:, : columns * samples * bits].reshape(len(block), columns, samples, bits)
    numbers = np.zeros(spread.shape[:3], np.uint32)
    for bit in range(bits):
        numbers = (numbers << np.uint32(1)) | spread[..., bit]
    return numbers


# --- Pillow -------------------------------------------------------------------------------------------------


def _by_pillow(page: Any, data: bytes) -> Stored | None:
    """Return the samples of a page as Pillow decodes them; None if Pillow does not read all of them unchanged."""
    key = page.keyframe
    try:
        with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
            if page.index:
                image.seek(page.index)
            bands, bits = _PILLOW_MODES.get("RGB" if image.mode == "YCbCr" else image.mode, (0, 0))
            if bands != key.samplesperpixel or (bits == 8) != (int(key.bitspersample) in (2, 4, 8)):
                return None
            inverted = image.mode in ("1", "L") and int(image.tag_v2.get(262, 0)) == 0  # type: ignore[attr-defined]
            turned = int(image.getexif().get(ORIENTATION, 1)) in range(2, 9)
            image.load()
            samples = np.asarray(image.convert("RGB") if image.mode == "YCbCr" else image)
    except (UnidentifiedImageError, KeyError, SyntaxError):
        return None
    except (OSError, ValueError):
        if int(key.compression) in _PILLOW_ONLY:
            raise
        return None
    samples = samples.astype(np.uint8) if samples.dtype == bool else samples
    samples = samples[..., None] if samples.ndim == 2 else samples
    return Stored(samples.astype(samples.dtype.newbyteorder("="), copy=False), bits, inverted, turned)
