"""Staging: the resized images of one size while the data set is read, until the array is made of them.

The scan has each image in its memory once; so it resizes it there, too, and no file is read a second time. Each image
has a slot, that of its row in the listing if possible, in a file for 8-bit images and one for 16-bit images, because it
is only known at the end whether any image has more than 8 bits. An index says which pixels (by their SHA-256) are in
which slot, with the checksum of the row; so a row that was half written, or is another image's, is not taken for it,
and after a kill the next start goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from harness.config.data import DataConfig
from harness.config.fit import Fit
from harness.data.decoding.rules import rules_of
from harness.data.sources.listing import Listing
from harness.data.staged_rows import HEADER, Target, file_of, row_bytes

_RECORD = struct.Struct("<II?32s")  # slot, CRC-32 of the row, whether it has 16 bits, SHA-256 of the pixels
_CHECK = struct.Struct("<I")  # CRC-32 of the record
_ABANDONED = 30 * 86400.0  # seconds
_UNKNOWN, _SHALLOW, _DEEP = 0, 1, 2


def assign_slots(rows: Sequence[int], needed: Iterable[int], count: int) -> dict[int, int]:
    """Return a slot for each row: its own, or, if that is `needed` for an image that is staged already, another one.

    Args:
        rows: rows of the listing that will be read.
        count: slots in all.
    """
    taken = set(needed)
    slots = {row: row for row in rows if row not in taken}
    free = iter(sorted(set(range(count)) - taken - slots.keys()) if len(slots) < len(rows) else ())
    return {row: slots[row] if row in slots else next(free, row) for row in rows}


def remove_abandoned(cache: Path) -> None:
    """Remove what was staged for an array that nobody has gone on with for a month."""
    for lock in (cache / "staged").glob("*.lock"):
        folder = lock.with_suffix("")
        times = [path.stat().st_mtime for path in folder.glob("*")] if folder.is_dir() else []
        if times and time.time() - max(times) > _ABANDONED:
            with suppress(Timeout), FileLock(lock, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)


def left_behind(cache: Path) -> list[Path]:
    """Return the folders of staged images that no process owns: their array was never made."""
    folders = sorted(path for path in (cache / "staged").glob("*") if path.is_dir())
    return [folder for folder in folders if not _is_owned(folder)]


def remove_left_behind(folder: Path) -> bool:
    """Remove one of the folders that `left_behind` gave; return False if a process owns it by now."""
    try:
        with FileLock(folder.with_suffix(".lock"), timeout=0):
            shutil.rmtree(folder)
    except Timeout:
        return False
    return True


def _is_owned(folder: Path) -> bool:
    lock = folder.with_suffix(".lock")
    if not lock.exists():  # to take it would make it, and looking must change nothing
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


class Staging:
    """The staged images of one listing at one size. Use it inside `held()` only; see the module."""

    def __init__(
        self,
        listing: Listing,
        config: DataConfig,
        size: int | Fit,
        *,
        cache: Path,
        channels: int = 3,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        """Do not open any file yet.

        Args:
            channels: of every image.
            value_range: see `Target`.
        """
        place = os.fsencode(listing.root).hex() if listing.root is not None else listing.source
        size = Fit.of(size)
        shape = [size.side, size.shorter, size.interpolation]
        key = json.dumps([place, shape, channels, config.resize, rules_of(config, value_range).cache_key()])
        self.folder = cache / "staged" / hashlib.sha256(key.encode()).hexdigest()[:32]
        self.target = Target(self.folder, size, config.resize, config.background, channels, value_range)
        self._count = len(listing.samples)
        self._pending = bytearray()
        self._lock = FileLock(self.folder.with_suffix(".lock"))
        self._kinds = np.zeros(0, np.uint8)
        self._checks = np.zeros(0, np.uint32)
        self._digests = np.zeros((0, 32), np.uint8)
        self._from_earlier = np.zeros(0, np.bool_)

    @contextmanager
    def held(self, *, wait: bool) -> Iterator[bool]:
        """Own the files in this block, and write the index at its end; give False if another process owns them.

        Args:
            wait: whether to wait for that process instead.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            yield False
            return
        try:
            self.folder.mkdir(exist_ok=True)
            self._load()
            try:
                yield True
            finally:
                self.target.close()
                self.flush()
        finally:
            self._lock.release()

    def note(self, slot: int, pixels_sha256: str, check: int, *, deep: bool) -> None:
        """Note what was written into a slot. The note is stored with the next `flush`."""
        digest = bytes.fromhex(pixels_sha256)
        record = _RECORD.pack(slot, check, deep, digest)
        self._pending += record + _CHECK.pack(zlib.crc32(record))
        self._set(slot, check, deep, digest)
        self._from_earlier[slot] = False

    def flush(self) -> None:
        """Append the notes to the index, so that a kill loses none of them."""
        if self._pending and self.folder.is_dir():
            with (self.folder / "index").open("ab") as stream:
                stream.write(self._pending)
            self._pending.clear()

    def slots_of(self, rows: Sequence[int], wanted: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the slot that holds each image, or -1 if none does: its own one, otherwise any with its pixels.

        Args:
            rows: rows of the listing.
            wanted: (images, 32) SHA-256 of the pixels of each.
        """
        found = np.full(len(rows), -1, np.int64)
        own = np.asarray(rows, np.int64)
        if len(own):
            held = (self._kinds[own] != _UNKNOWN) & (self._digests[own] == wanted).all(axis=1)
            found[held] = own[held]
        if (found < 0).any():
            elsewhere = {self._digests[slot].tobytes(): int(slot) for slot in np.flatnonzero(self._kinds)}
            for position in np.flatnonzero(found < 0):
                found[position] = elsewhere.get(wanted[position].tobytes(), -1)
        return found

    def is_deep(self, slot: int) -> bool:
        """Return whether the image in this slot has 16 bits a sample."""
        return bool(self._kinds[slot] == _DEEP)

    def file(self, *, deep: bool) -> Path:
        """Return the file with the images of 8 bits a sample, or of 16."""
        return file_of(self.folder, deep=deep)

    def checks(self, slots: NDArray[np.int64]) -> NDArray[np.uint32]:
        """Return the CRC-32 of each slot's row."""
        return self._checks[slots]

    def deep(self, slots: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return whether the image in each slot has 16 bits a sample."""
        return np.asarray(self._kinds[slots] == _DEEP)

    def damaged(self, slots: NDArray[np.int64]) -> list[int]:
        """Return the slots whose row does not have its checksum, and forget them.

        Only rows that another process wrote are read: what this one wrote has not left the memory of this machine.
        """
        bad = [int(slot) for slot in slots if self._from_earlier[slot] and self.row(int(slot)) is None]
        self.forget(bad)
        return bad

    def forget(self, slots: Sequence[int]) -> None:
        """Take nothing from these slots any more."""
        self._kinds[list(slots)] = _UNKNOWN

    def row(self, slot: int) -> bytes | None:
        """Return the bytes of a slot's row, or None if it does not have its checksum."""
        deep = self.is_deep(slot)
        count = row_bytes(self.target.size.side, self.target.channels, deep=deep)
        try:
            with self.file(deep=deep).open("rb") as stream:
                stream.seek(HEADER + slot * count)
                row = stream.read(count)
        except OSError:
            return None
        return row if len(row) == count and zlib.crc32(row) == self._checks[slot] else None

    def discard(self) -> None:
        """Remove the files. Only their owner may call this."""
        self.target.close()
        self._pending.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def discard_if_free(self) -> None:
        """Remove the files, if there are any and nobody owns them."""
        if self.folder.exists():
            with self.held(wait=False) as owned:
                if owned:
                    self.discard()

    def _load(self) -> None:
        """Read the index. A record that was cut off or changed is ignored; of one slot, the last record counts."""
        self._kinds = np.zeros(self._count, np.uint8)
        self._checks = np.zeros(self._count, np.uint32)
        self._digests = np.zeros((self._count, 32), np.uint8)
        self._from_earlier = np.ones(self._count, np.bool_)
        index = self.folder / "index"
        step = _RECORD.size + _CHECK.size
        try:
            with index.open("rb+") as stream:
                size = index.stat().st_size
                stream.truncate(size - size % step)  # half a record at its end would put all later ones out of step
                while data := stream.read(step * 4096):
                    for start in range(0, len(data), step):
                        record = data[start : start + _RECORD.size]
                        if _CHECK.unpack_from(data, start + _RECORD.size)[0] == zlib.crc32(record):
                            slot, check, deep, digest = _RECORD.unpack(record)
                            self._set(slot, check, deep, digest)
        except FileNotFoundError:
            return

    def _set(self, slot: int, check: int, deep: bool, digest: bytes) -> None:
        if slot < self._count:  # the listing may have become shorter
            self._kinds[slot] = _DEEP if deep else _SHALLOW
            self._checks[slot] = check
            self._digests[slot] = np.frombuffer(digest, np.uint8)
