"""Image files that are written byte by byte, of kinds that common libraries do not write."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from harness.data.decoding import decode
from harness.data.decoding.decode import Facts, Pixels
from harness.data.decoding.rules import ReadingRules


def read(data: bytes, **rules: Any) -> tuple[Pixels, Facts]:
    return decode.read(data, ReadingRules(**rules))


def fractions(data: bytes, **rules: Any) -> NDArray[np.float64]:
    """The pixels of a file in [0, 1]."""
    pixels, _ = read(data, **rules)
    return pixels / (65535 if pixels.dtype == np.uint16 else 255)


def as_tiff(samples: NDArray[Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, samples, **options)
    return stream.getvalue()


def packed(lines: NDArray[Any], bits: int) -> bytes:
    """Rows of numbers (rows, columns), each row packed without gaps, the highest bit first."""
    out = b""
    for line in lines.reshape(len(lines), -1):
        text = "".join(format(int(value), f"0{bits}b") for value in line)
        text += "0" * (-len(text) % 8)
        out += int(text, 2).to_bytes(len(text) // 8, "big")
    return out


def raw_tiff(
    samples: NDArray[Any],
    bits: int,
    *,
    photometric: int | None = 1,
    compression: tuple[int, Callable[[bytes], bytes]] = (1, bytes),
    planar: bool = False,
    tile: int | None = None,
    rows: int | None = None,
    more: dict[int, tuple[int, list[int]]] | None = None,
    order: str = "<",
    reverse: bool = False,
) -> bytes:
    """A TIFF file of one page with samples (height, width, samples) of any number of bits.

    Args:
        samples: whole numbers below 2^bits, or anything whose bytes are written as they are if bits is 8, 16 or 32.
        bits: of each sample.
        photometric: the tag; None for a file without it.
        compression: number of the tag, and the function.
        planar: whether each channel is a plane of its own.
        tile: side of tiles, instead of strips.
        rows: of each strip; one strip without it.
        more: further tags: number -> (type, values).
        order: of bytes, < or >.
        reverse: whether the lowest bit of each byte comes first (fill order 2).
    """
    height, width, channels = samples.shape
    parts = [samples[..., c : c + 1] for c in range(channels)] if planar else [samples]
    blocks = []
    for part in parts:
        if tile is None:
            step = rows or height
            blocks += [part[top : top + step] for top in range(0, height, step)]
        else:
            for top in range(0, height, tile):
                for left in range(0, width, tile):
                    block = np.zeros((tile, tile, part.shape[2]), samples.dtype)
                    some = part[top : top + tile, left : left + tile]
                    block[: some.shape[0], : some.shape[1]] = some
                    blocks.append(block)
    segments = []
    for block in blocks:
        whole = bits in (8, 16, 32) and block.dtype.itemsize * 8 == bits
        body = block.astype(block.dtype.newbyteorder(order)).tobytes() if whole else packed(block, bits)
        body = bytes(int(f"{byte:08b}"[::-1], 2) for byte in body) if reverse else body
        segments.append(compression[1](body))
    tags: dict[int, tuple[int, list[int]]] = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits] * channels),
        259: (3, [compression[0]]),
        277: (3, [channels]),
        284: (3, [2 if planar else 1]),
        266: (3, [2 if reverse else 1]),
    }
    if photometric is not None:
        tags[262] = (3, [photometric])
    places, sizes = (324, 325) if tile is not None else (273, 279)
    tags |= {322: (4, [tile]), 323: (4, [tile])} if tile is not None else {278: (4, [rows or height])}
    tags |= more or {}
    tags[places], tags[sizes] = (4, [0] * len(segments)), (4, [len(segment) for segment in segments])

    def directory(places_of: list[int]) -> tuple[bytes, int]:
        tags[places] = (4, places_of)
        start = 8 + 2 + 12 * len(tags) + 4
        entries, beyond = b"", b""
        for number, (kind, values) in sorted(tags.items()):
            body = b"".join(struct.pack(order + {1: "B", 3: "H", 4: "I"}[kind], value) for value in values)
            if len(body) > 4:
                field, beyond = struct.pack(order + "I", start + len(beyond)), beyond + body + b"\0" * (len(body) % 2)
            else:
                field = body.ljust(4, b"\0")
            entries += struct.pack(order + "HHI", number, kind, len(values)) + field
        mark = b"II*\0" if order == "<" else b"MM\0*"
        whole = mark + struct.pack(order + "IH", 8, len(tags)) + entries + bytes(4) + beyond
        return whole, len(whole)

    _, end = directory([0] * len(segments))
    offsets = [end + sum(map(len, segments[:index])) for index in range(len(segments))]
    return directory(offsets)[0] + b"".join(segments)


def chunk(name: bytes, body: bytes, *, right: bool = True) -> bytes:
    """A chunk of a PNG file, with a right or a wrong checksum."""
    check = zlib.crc32(name + body) ^ (0 if right else 1)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", check)


def raw_png(samples: NDArray[Any], bits: int, colour: int, *extra: bytes) -> bytes:
    """A PNG file without filters: samples (height, width, channels) below 2^bits, and chunks before the pixels."""
    height, width = samples.shape[:2]
    lines = packed(samples, bits)
    step = len(lines) // height
    body = b"".join(b"\0" + lines[row * step : (row + 1) * step] for row in range(height))
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(extra)
    return start + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")
