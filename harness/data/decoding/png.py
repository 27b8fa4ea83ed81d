"""PNG before Pillow reads it: chunks that do not concern pixels are removed, and the rest is checked.

Pillow refuses a whole file because of a long comment or a wrong checksum in one, and does not scale the transparent
colour (`tRNS`) of images with 1, 2 or 4 bits. After the PNG specification (third edition), section 5 and 11.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from harness.errors import DataError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Ancillary chunks that decide pixels: transparency, orientation, animation.
_KEPT = frozenset((b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT"))
_TEXTS = frozenset((b"tEXt", b"zTXt", b"iTXt"))
_ORIENTING = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")  # comments in which some programs store it
_LONGEST = 1 << 20  # bytes of such a comment when it is unpacked


@dataclass(frozen=True)
class Checked:
    """A PNG file without comments. `key` is the transparent colour of a grey or RGB image, in its own bits."""

    data: bytes
    bits: int
    grey: bool
    key: tuple[int, ...] | None


def checked(data: bytes) -> Checked:
    """Check the checksums of all chunks that decide pixels, and drop the others.

    Raises:
        DataError: a chunk that decides pixels has a wrong checksum.
    """
    bits, colour = (data[24], data[25]) if len(data) > 25 else (0, 0)
    chunks = list(_chunks(data))
    animated = any(kind == b"acTL" for kind, _, _ in chunks)
    parts, key, dropped = [SIGNATURE], None, False
    for kind, body, is_right in chunks:
        ancillary = bool(kind[0] & 32)
        if not is_right and (not ancillary or kind == b"tRNS"):
            raise DataError(f"its {kind.decode('ascii', 'replace')} chunk has a wrong checksum")
        if kind == b"tRNS" and colour in (0, 2) and not animated:
            if len(body) < (2 if colour == 0 else 6):
                raise DataError("its tRNS chunk is too short")
            mask = (1 << bits) - 1
            key = tuple(
                value & mask for value in struct.unpack(">H" if colour == 0 else ">HHH", body[: 2 + 2 * colour])
            )
            dropped = True
        elif ancillary and (not is_right or kind not in _KEPT) and not (is_right and _orients(kind, body)):
            dropped = True
        else:
            parts.append(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))
    end = len(SIGNATURE) + sum(12 + len(body) for _, body, _ in chunks)
    # What follows the last whole chunk is a part of one, if the file is truncated: the decoder says so.
    tail = data[end:] if not chunks or chunks[-1][0] != b"IEND" else b""
    if not any(kind == b"IDAT" for kind, _, _ in chunks) and tail[4:8] != b"IDAT":
        raise DataError("is damaged (it has no pixels)" if chunks and chunks[-1][0] == b"IEND" else "is truncated")
    return Checked(b"".join([*parts, tail]) if dropped else data, bits, colour == 0, key)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """Yield (kind, body, whether the checksum is right) of all whole chunks up to IEND."""
    place = len(SIGNATURE)
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        end = place + 8 + length
        if end + 4 > len(data):
            return
        kind, body = data[place + 4 : place + 8], data[place + 8 : end]
        yield kind, body, struct.unpack_from(">I", data, end)[0] == zlib.crc32(body, zlib.crc32(kind))
        if kind == b"IEND":
            return
        place = end + 4


def _orients(kind: bytes, body: bytes) -> bool:
    """Return whether this is a comment that may hold the orientation, and is short enough for Pillow."""
    if kind not in _TEXTS:
        return False
    name = next((name for name in _ORIENTING if body.startswith(name)), None)
    if name is None or len(body) > _LONGEST:
        return False
    rest = body[len(name) :]
    if kind == b"tEXt" or (kind == b"iTXt" and rest[:1] == b"\0"):
        return True
    packed = rest[1:] if kind == b"zTXt" else rest[2:].split(b"\0", 2)[-1]
    try:
        return len(zlib.decompressobj().decompress(packed, _LONGEST)) < _LONGEST
    except zlib.error:
        return False
