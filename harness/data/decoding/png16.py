"""A reader of PNG images with 16 bits for each sample and several channels, which Pillow would reduce to 8 bits.

After the PNG specification (third edition), sections 7 to 9: filtering, interlacing, compression.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def is_16_bit(data: bytes) -> bool:
    """Return whether these bytes begin like a PNG file with 16 bits for each sample."""
    return len(data) > 25 and data[:8] == SIGNATURE and data[24] == 16


def read(data: bytes) -> NDArray[np.uint16]:
    """Return the samples (height, width, channels) of a 16-bit PNG file; a `tRNS` colour becomes an alpha channel.

    The caller must check the size in the header before.

    Raises:
        DataError: the file is damaged.
    """
    width, height, _, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    if colour not in CHANNELS:
        raise DataError(f"its header names colour type {colour} with 16 bits, which PNG does not have")
    channels = CHANNELS[colour]
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    shapes = [(-(-(height - y) // dy), -(-(width - x) // dx)) for y, x, dy, dx in passes]
    shapes = [(max(rows, 0), max(columns, 0)) for rows, columns in shapes]
    wanted = sum(rows * (1 + columns * channels * 2) for rows, columns in shapes if columns)
    packed, transparent = _chunks(data)
    try:
        raw = zlib.decompressobj().decompress(packed, wanted)
    except zlib.error as error:
        raise DataError(f"its pixels are damaged ({error})") from None
    if len(raw) < wanted:
        raise DataError("is truncated")
    pixels = np.empty((height, width, channels), np.uint16)
    start = 0
    for (y, x, dy, dx), (rows, columns) in zip(passes, shapes, strict=True):
        if rows and columns:
            length = rows * (1 + columns * channels * 2)
            lines = np.frombuffer(raw, np.uint8, length, start).reshape(rows, -1)
            pixels[y::dy, x::dx] = _unfilter(lines, columns, channels * 2).view(">u2")
            start += length
    if transparent is not None and colour in (0, 2):
        key = np.frombuffer(transparent[: channels * 2], ">u2")
        alpha = np.where((pixels == key).all(axis=2), 0, 65535).astype(np.uint16)
        pixels = np.concatenate([pixels, alpha[..., None]], axis=2)
    return pixels


def _chunks(data: bytes) -> tuple[bytes, bytes | None]:
    """Return the compressed pixels and the tRNS chunk, after checking their checksums."""
    parts: list[bytes] = []
    transparent, place = None, 8
    while place + 12 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        check = data[place + 8 + length : place + 12 + length]
        if len(check) < 4:
            raise DataError("is truncated")
        if kind in (b"IDAT", b"tRNS", b"IHDR") and struct.unpack(">I", check)[0] != zlib.crc32(kind + body):
            raise DataError(f"its {kind.decode()} chunk has a wrong checksum")
        if kind == b"IDAT":
            parts.append(body)
        elif kind == b"tRNS":
            transparent = body
        elif kind == b"IEND":
            break
        place += 12 + length
    return b"".join(parts), transparent


def _unfilter(lines: NDArray[np.uint8], columns: int, step: int) -> NDArray[np.uint8]:
    """Undo the filter of every row: from lines (rows, 1 + columns * step) to pixels (rows, columns, step).

    A pixel depends on its left, upper and upper-left neighbours, so that all pixels of an anti-diagonal can be computed
    together. This takes rows + columns steps in NumPy instead of a Python loop over the bytes.
    """
    rows, kinds = len(lines), lines[:, 0]
    if kinds.max(initial=0) > 4:
        raise DataError(f"a row has filter {kinds.max()}, but PNG has only 0 to 4")
    # done[y + 1, x + 1]: one row and one column of zeros precede the image
    done = np.zeros((rows + 1, columns + 1, step), np.int16)
    given = lines[:, 1:].reshape(rows, columns, step).astype(np.int16)
    for diagonal in range(rows + columns - 1):
        y = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        x = diagonal - y
        left, up, corner = done[y + 1, x], done[y, x + 1], done[y, x]
        from_left, from_up, from_corner = np.abs(up - corner), np.abs(left - corner), np.abs(left + up - 2 * corner)
        nearest = np.where(
            (from_left <= from_up) & (from_left <= from_corner), left, np.where(from_up <= from_corner, up, corner)
        )
        guess = np.choose(kinds[y][:, None], [np.zeros_like(left), left, up, (left + up) >> 1, nearest])
        done[y + 1, x + 1] = (given[y, x] + guess) & 255
    return np.ascontiguousarray(done[1:, 1:].astype(np.uint8))
