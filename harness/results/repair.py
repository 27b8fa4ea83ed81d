"""One changed byte in a line of the event log, found by the line's checksum and set right.

A disk or a cable that turns a bit leaves a line whose checksum says exactly what was changed: for CRC-32 the
difference between the noted and the found value names the place and the byte. A line is taken only if it is then, to
the last byte, what the log would have written.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

from harness.results.events import Damage, decode, encode

_TABLE = [zlib.crc32(bytes([value])) ^ zlib.crc32(b"\0") for value in range(256)]  # what a changed byte changes
_BYTE_OF = {effect: value for value, effect in enumerate(_TABLE) if value}
_BY_TOP = {effect >> 24: value for value, effect in enumerate(_TABLE)}
_NAME = b',"crc":'
_NOTED = re.compile(rb"(\d{1,11})\}\n\Z")  # the checksum's digits
_SEAM = re.compile(rb'(?<=\})[^\n](?=\{"seq":)')  # where a line's end was


def repaired(log: bytes, damage: Damage) -> bytes | None:
    """The lines that stood where a log is damaged, or None where more than a byte was changed.

    Args:
        log: the file's content.
    """
    piece = log[damage.start : damage.end]
    missing = None if damage.before is None else damage.before - damage.after - 1
    if missing in (None, 1):
        for line in _candidates(piece):
            if _is(line, damage.after + 1):
                return line
    if missing in (None, 2):  # the byte that ended a line was changed
        for seam in _SEAM.finditer(piece):
            first, second = piece[: seam.start()] + b"\n", piece[seam.end() :]
            if _is(first, damage.after + 1) and _is(second, damage.after + 2):
                return first + second
    return None


def _is(line: bytes, seq: int) -> bool:
    """Whether this is the line of that event, as the log writes it."""
    event = decode(line)
    return event is not None and event.seq == seq and encode(event) == line


def _candidates(line: bytes) -> Iterator[bytes]:
    """The line with one byte set otherwise, wherever that could be the one that was changed."""
    for end in (b"\n", b"}\n"):
        yield line[: -len(end)] + end
        yield line + end  # cut off behind the event
    if digits := _NOTED.search(line):
        for count in range(1, len(digits[1]) + 1):  # the byte before the number may have become a digit as well
            number = digits.end(1) - count
            yield line[: number - len(_NAME)] + _NAME + line[number:]
    head, separator, tail = line.rpartition(b',"crc":')
    if not separator:
        return
    body = head + b"}"
    found = zlib.crc32(body)
    noted = tail[:-2]
    right = str(found).encode()
    if len(right) == len(noted) and sum(a != b for a, b in zip(right, noted, strict=True)) == 1:
        yield head + separator + right + b"}\n"
    if noted.isdigit() and int(noted) < 1 << 32:
        for place, change in _places(found ^ int(noted), len(body)):
            if place < len(head):
                yield head[:place] + bytes([head[place] ^ change]) + head[place + 1 :] + separator + tail


def _places(difference: int, length: int) -> Iterator[tuple[int, int]]:
    """Every (place, exclusive or) of one byte that makes this difference in the checksum of so many bytes."""
    for place in range(length - 1, -1, -1):
        if difference in _BYTE_OF:
            yield place, _BYTE_OF[difference]
        low = _BY_TOP[difference >> 24]  # one step back: the byte behind `place` undone
        difference = ((difference ^ _TABLE[low]) << 8 | low) & 0xFFFFFFFF
