"""The scan's memory: what was found in each file of a folder, so that an unchanged file is not read again.

It is a journal with one line for each image, appended while the scan goes on, so that a kill loses a few seconds. Each
line has a checksum, and a line that is damaged or cut off is ignored.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from harness.atomic import atomic_path, disk_errors
from harness.data.reading import FACTS, TRAITS, Scanned, from_values, to_values
from harness.data.sources.listing import Frame, Listing
from harness.data.traits import SIDE

_FRESH = 2.0  # seconds; a newer file is not stored, because it may change again without a new time stamp
_THUMBNAIL = TRAITS.index("thumbnail")
_DEEP = FACTS.index("deep")
_THUMBNAIL_BYTES = SIDE * SIDE


class Images(Sequence[Scanned]):
    """What was found in each image, in about 500 bytes an image: a `Scanned` is made when it is asked for."""

    def __init__(self, packed: Sequence[bytes]) -> None:
        self._packed = packed

    def __len__(self) -> int:
        return len(self._packed)

    @overload
    def __getitem__(self, index: int) -> Scanned: ...
    @overload
    def __getitem__(self, index: slice) -> Images: ...
    def __getitem__(self, index: int | slice) -> Scanned | Images:
        return Images(self._packed[index]) if isinstance(index, slice) else unpack(self._packed[index])

    def __iter__(self) -> Iterator[Scanned]:
        return map(unpack, self._packed)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Images) and list(self._packed) == list(other._packed)

    def __hash__(self) -> int:
        return hash(tuple(self._packed))

    @property
    def deep(self) -> bool:
        """Whether any image has more than 8 bits."""
        return any(packed[64] for packed in self._packed)

    def pixel_digests(self, count: int = 32) -> NDArray[np.uint8]:
        """Return the first bytes of the SHA-256 of each image's pixels as (images, count)."""
        digests = b"".join(packed[32 : 32 + count] for packed in self._packed)
        return np.frombuffer(digests, np.uint8).reshape(-1, count)


def pack(values: list[Any]) -> bytes:
    """Return an image's values, as `to_values` gives them, as digests and thumbnail in bytes and the rest in JSON."""
    traits = list(values[3])
    thumbnail = bytes.fromhex(traits[_THUMBNAIL])
    traits[_THUMBNAIL] = ""
    assert len(thumbnail) == _THUMBNAIL_BYTES
    rest = json.dumps([values[2], traits], separators=(",", ":")).encode()
    return b"".join(
        (bytes.fromhex(values[0]), bytes.fromhex(values[1]), bytes([bool(values[2][_DEEP])]), thumbnail, rest)
    )


def unpack(packed: bytes) -> Scanned:
    """Return the image that `pack` was given."""
    end = 65 + _THUMBNAIL_BYTES
    facts, traits = json.loads(packed[end:])
    traits[_THUMBNAIL] = packed[65:end].hex()
    return from_values([packed[:32].hex(), packed[32:64].hex(), facts, traits])


class Memory:
    """The results of earlier scans of one folder with the same rules for decoding.

    A file counts as unchanged if its size and time of change are the same.
    """

    def __init__(self, listing: Listing, rules: str, *, cache: Path) -> None:
        """Read what earlier scans stored.

        Args:
            rules: key of everything that decides the pixels of a file.
        """
        self.found: list[bytes | None] = [None] * len(listing.samples)  # packed, for each row of the listing
        self._listing = listing
        self._path: Path | None = None
        self._pending = bytearray()
        self._lines = 0  # that the file has
        if listing.root is None:
            return
        key = json.dumps([os.fsencode(listing.root).hex(), rules, FACTS, TRAITS])
        self._path = cache / "scan" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.jsonl"
        self._stamps = np.zeros((len(listing.samples), 2), np.int64)  # size in bytes, time of change in nanoseconds
        self._read()

    def unknown(self) -> list[int]:
        """Return the rows whose file must be read."""
        return [row for row, packed in enumerate(self.found) if packed is None]

    def rows(self) -> Sequence[int]:
        """Return the rows whose image is known, which `images` returns."""
        if None not in self.found:
            return range(len(self.found))  # a tuple would take 36 bytes an image
        return tuple(row for row, packed in enumerate(self.found) if packed is not None)

    def images(self) -> Images:
        """Return the images that are known."""
        return Images([packed for packed in self.found if packed is not None])

    def about_to_read(self, row: int) -> None:
        """Note the size and time of a file, just before it is read."""
        if self._path is not None:
            self._stamps[row] = self._stamp(row) or (0, 0)

    def keep(self, row: int, values: list[Any]) -> None:
        """Keep what was found in an image; it is stored with the next `flush`."""
        self.found[row] = pack(values)
        size, changed = (0, 0) if self._path is None else map(int, self._stamps[row])
        if changed and time.time() - changed / 1e9 >= _FRESH:
            self._pending += _line(self._listing.samples[row].path, size, changed, values)
            self._lines += 1

    def flush(self) -> None:
        """Append what was kept to the file, so that a kill does not lose it."""
        if self._path is None or not self._pending:
            return
        with disk_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as stream:
                stream.write(b"\n" + self._pending)  # the file may end with half a line
        self._pending.clear()

    def tidy(self) -> None:
        """Write the file anew if most of its lines are of files that are gone or were read again."""
        if self._path is None or self._lines <= 2 * len(self.found) + 100:
            return
        with atomic_path(self._path) as temporary, temporary.open("wb") as stream:
            for row, packed in enumerate(self.found):
                size, changed = map(int, self._stamps[row])
                if packed is not None and changed and time.time() - changed / 1e9 >= _FRESH:
                    stream.write(_line(self._listing.samples[row].path, size, changed, to_values(unpack(packed))))

    def _read(self) -> None:
        assert self._path is not None
        try:
            stream = self._path.open("rb")
        except OSError:
            return
        row_of = {sample.path: row for row, sample in enumerate(self._listing.samples)}
        with stream:
            for line in stream:
                check, _, body = line.rstrip(b"\n").partition(b" ")
                if not body or f"{zlib.crc32(body):08x}".encode() != check:
                    continue
                self._lines += 1
                path, size, changed, *values = json.loads(body)
                row = row_of.get(path)
                if row is None:
                    continue
                if not self._stamps[row].any():
                    self._stamps[row] = self._stamp(row) or (0, 0)
                if tuple(self._stamps[row]) == (size, changed):
                    self.found[row] = pack(values)

    def _stamp(self, row: int) -> tuple[int, int] | None:
        source = self._listing.fetch(row)
        source = source.path if isinstance(source, Frame) else source
        if not isinstance(source, Path):
            return None
        try:
            status = source.stat()
        except OSError:
            return None
        return status.st_size, status.st_mtime_ns


def _line(path: str, size: int, changed: int, values: list[Any]) -> bytes:
    body = json.dumps([path, size, changed, *values], separators=(",", ":")).encode()
    return f"{zlib.crc32(body):08x} ".encode() + body + b"\n"
