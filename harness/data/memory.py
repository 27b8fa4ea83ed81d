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
_NUMBERS = ("width", "height", "low", "high", "size", "brightness", "border")  # facts and traits that vary most
_RECORD = np.dtype(
    [
        ("sha256", np.uint8, 32),
        ("pixels_sha256", np.uint8, 32),
        ("thumbnail", np.uint8, (SIDE, SIDE)),
        *((name, np.float64) for name in _NUMBERS),
        ("others", np.int32),  # index into the distinct remaining facts and traits; -1 if nothing is known
    ]
)
_WHOLE = ("width", "height", "size")  # numbers that are integers
_UNKNOWN = -1


class Images(Sequence[Scanned]):
    """What was found in each image, in about 400 bytes an image: a `Scanned` is made when it is asked for."""

    def __init__(self, records: NDArray[np.void], others: Sequence[str]) -> None:
        """Use the records of a `_Records`, and its distinct remaining facts and traits."""
        self._records, self._others = records, others

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Scanned: ...
    @overload
    def __getitem__(self, index: slice) -> Images: ...
    def __getitem__(self, index: int | slice) -> Scanned | Images:
        if isinstance(index, slice):
            return Images(self._records[index], self._others)
        return _scanned(self._records[index], self._others)

    def __iter__(self) -> Iterator[Scanned]:
        return (_scanned(record, self._others) for record in self._records)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Images) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    @property
    def deep(self) -> bool:
        """Whether any image has more than 8 bits."""
        return any(_others_of(self._others[index])["deep"] for index in np.unique(self._records["others"]).tolist())

    @property
    def thumbnails(self) -> NDArray[np.uint8]:
        """The thumbnails of all images as (images, SIDE, SIDE) grey values, without a copy."""
        return np.asarray(self._records["thumbnail"])

    def pixel_digests(self, count: int = 32) -> NDArray[np.uint8]:
        """Return the first bytes of the SHA-256 of each image's pixels as (images, count)."""
        return np.ascontiguousarray(self._records["pixels_sha256"][:, :count])


class _Records:
    """What was found in each image of a listing, as numbers and an index into the distinct values of all others."""

    def __init__(self, count: int) -> None:
        self.table = np.zeros(count, _RECORD)
        self.table["others"] = _UNKNOWN
        self._index: dict[str, int] = {}

    def set(self, row: int, values: list[Any]) -> None:
        """Keep an image's values, as `to_values` gives them."""
        named = {**dict(zip(FACTS, values[2], strict=True)), **dict(zip(TRAITS, values[3], strict=True))}
        record = self.table[row]
        record["sha256"], record["pixels_sha256"] = _bytes(values[0]), _bytes(values[1])
        record["thumbnail"] = _bytes(named.pop("thumbnail")).reshape(SIDE, SIDE)
        for name in _NUMBERS:
            record[name] = named.pop(name)
        others = json.dumps(named, separators=(",", ":"))
        record["others"] = self._index.setdefault(others, len(self._index))

    def known(self) -> NDArray[np.bool_]:
        """Return (images,) whether anything was kept for an image."""
        return np.asarray(self.table["others"] != _UNKNOWN)

    def images(self) -> Images:
        """Return the images that are known."""
        known = self.known()
        return Images(self.table if known.all() else self.table[known], tuple(self._index))


def _scanned(record: np.void, others: Sequence[str]) -> Scanned:
    named = {**_others_of(others[record["others"]]), "thumbnail": record["thumbnail"].tobytes().hex()}
    for name in _NUMBERS:
        named[name] = int(record[name]) if name in _WHOLE else float(record[name])
    facts, traits = [named[name] for name in FACTS], [named[name] for name in TRAITS]
    return from_values([record["sha256"].tobytes().hex(), record["pixels_sha256"].tobytes().hex(), facts, traits])


def _others_of(text: str) -> dict[str, Any]:
    others: dict[str, Any] = json.loads(text)
    return others


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex(text), np.uint8)


class Memory:
    """The results of earlier scans of one folder with the same rules for decoding.

    A file counts as unchanged if its size and time of change are the same.
    """

    def __init__(self, listing: Listing, rules: str, *, cache: Path) -> None:
        """Read what earlier scans stored.

        Args:
            rules: key of everything that decides the pixels of a file.
        """
        self._found = _Records(len(listing.samples))
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
        return np.flatnonzero(~self._found.known()).tolist()

    def rows(self) -> Sequence[int]:
        """Return the rows whose image is known, which `images` returns."""
        known = self._found.known()
        return range(len(known)) if known.all() else tuple(np.flatnonzero(known).tolist())  # 36 bytes an image

    def images(self) -> Images:
        """Return the images that are known."""
        return self._found.images()

    def about_to_read(self, row: int) -> None:
        """Note the size and time of a file, just before it is read."""
        if self._path is not None:
            self._stamps[row] = self._stamp(row) or (0, 0)

    def keep(self, row: int, values: list[Any]) -> None:
        """Keep what was found in an image; it is stored with the next `flush`."""
        self._found.set(row, values)
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
        if self._path is None or self._lines <= 2 * len(self._listing.samples) + 100:
            return
        with atomic_path(self._path) as temporary, temporary.open("wb") as stream:
            for row, image in zip(self.rows(), self.images(), strict=True):
                size, changed = map(int, self._stamps[row])
                if changed and time.time() - changed / 1e9 >= _FRESH:
                    stream.write(_line(self._listing.samples[row].path, size, changed, to_values(image)))

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
                    self._found.set(row, values)

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
