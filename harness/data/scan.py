"""The scan: read every image once, before the first trial, to find unreadable files and copies.

All faults of the data set are reported together. Results are stored in the cache by (path, size, time of change), so
that the next start does not read unchanged files again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.atomic import atomic_write
from harness.config.data import DataConfig
from harness.data.decoding import decode
from harness.data.decoding.decode import Facts, Pixels
from harness.data.decoding.raw import read_bytes
from harness.data.decoding.rules import rules_of
from harness.data.parallel import Progress, over_images
from harness.data.sources.listing import PARTS, Frame, Listing
from harness.data.sources.open_source import list_source
from harness.data.traits import Traits, traits_of
from harness.errors import DataError
from harness.safe_text import listed

_FRESH = 2.0  # seconds; a newer file is not stored, because it may change again without a new time stamp


@dataclass(frozen=True)
class Scanned:
    """One readable image: SHA-256 (hex) of its file and of its decoded pixels, and the facts about it."""

    sha256: str
    pixels_sha256: str
    facts: Facts
    traits: Traits


@dataclass(frozen=True)
class Scan:
    """The result of a scan; `images[i]` belongs to `listing.samples[rows[i]]`."""

    listing: Listing
    rows: tuple[int, ...]
    images: tuple[Scanned, ...]
    skipped: tuple[tuple[str, str], ...]  # (path, reason) of unreadable files, with `on_bad: skip`


def scan(config: DataConfig, *, cache: Path, progress: Progress | None = None) -> Scan:
    """Read all images of the source once.

    Args:
        cache: folder for downloads and for the results of earlier scans.
        progress: called with (images done, images in all), from this thread.

    Raises:
        ConfigError, ResourceError: the source's name is wrong, or the source cannot be reached.
        DataError: with `on_bad: error`, some files cannot be read (all are listed); there are fewer than two classes;
            a class has no images; or an image has two labels or is in two parts that the user fixed.
    """
    listing = list_source(config, cache=cache)
    memory = _Memory(listing, config, cache)
    with decode.quiet():
        results = over_images(lambda row: _examine(listing, row, config, memory), len(listing.samples), progress)
    memory.save()
    bad = [(listing.samples[row].path, reason) for row, reason in enumerate(results) if isinstance(reason, str)]
    if bad and config.on_bad == "error":
        raise DataError(
            f"{len(bad)} of {len(results)} images cannot be read; repair or remove them, or set data.on_bad: skip:\n"
            + listed((f"{path}: {reason}" for path, reason in bad), 50)
        )
    good = [(row, image) for row, image in enumerate(results) if isinstance(image, Scanned)]
    found = Scan(listing, tuple(row for row, _ in good), tuple(image for _, image in good), tuple(bad))
    _check_classes(found)
    _check_copies(found, config)
    return found


def fetch(listing: Listing, row: int, config: DataConfig) -> tuple[Pixels, Scanned]:
    """Return the pixels of one image at full size, with its digests and facts.

    Raises:
        DataError: it cannot be read. The message is the reason without the file's name.
    """
    stored = listing.fetch(row)
    source, frame = (stored.path, stored.number) if isinstance(stored, Frame) else (stored, None)
    if isinstance(source, np.ndarray):
        pixels: Pixels = source
        facts = Facts(source.shape[1], source.shape[0], "8-bit RGB image")
        digest = pixel_digest(pixels)
        return pixels, Scanned(digest, digest, facts, traits_of(pixels, None))
    try:
        data = read_bytes(source) if isinstance(source, Path) else source
    except OSError as error:
        raise DataError(f"cannot be opened ({error.strerror})") from None
    pixels, facts = decode.read(data, rules=rules_of(config), frame=frame)
    digest = pixel_digest(pixels)
    content = data if isinstance(data, bytes) else None
    traits = traits_of(pixels, content)
    return pixels, Scanned(hashlib.sha256(content).hexdigest() if content else digest, digest, facts, traits)


def pixel_digest(pixels: Pixels) -> str:
    """Return the SHA-256 (hex) of an image's values, shape and type."""
    digest = hashlib.sha256(f"{pixels.shape}{pixels.dtype.newbyteorder('<').str}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def _examine(listing: Listing, row: int, config: DataConfig, memory: _Memory) -> Scanned | str:
    """Return the result for one image, or the reason why it cannot be read."""
    known = memory.recall(row)
    if known is not None:
        return known
    try:
        _, result = fetch(listing, row, config)
    except DataError as error:
        return str(error)
    memory.keep(row, result)
    return result


class _Memory:
    """The results of earlier scans of one folder with the same settings for decoding.

    A file counts as unchanged if its size and time of change are the same. The results are stored with a checksum, and
    ignored if it is wrong. Threads may call this at the same time for different rows.
    """

    def __init__(self, listing: Listing, config: DataConfig, cache: Path) -> None:
        self._listing = listing
        self._known: dict[str, list[Any]] = {}
        self._changed = False
        self._stamps: dict[int, tuple[int, int]] = {}
        self._path: Path | None = None
        if listing.root is None:
            return
        key = [os.fsencode(listing.root).hex(), rules_of(config).cache_key()]
        self._path = cache / "scan" / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}.json"
        try:
            check, _, body = self._path.read_bytes().partition(b"\n")
            if hashlib.sha256(body).hexdigest().encode() == check:
                self._known = json.loads(body)
        except (OSError, ValueError):
            self._known = {}

    def recall(self, row: int) -> Scanned | None:
        source = self._listing.fetch(row) if self._path is not None else None
        if not isinstance(source, Path):
            return None
        try:
            status = source.stat()
        except OSError:
            return None
        self._stamps[row] = (status.st_size, status.st_mtime_ns)
        entry = self._known.get(self._listing.samples[row].path)
        if entry is None or (entry[0], entry[1]) != self._stamps[row]:
            return None
        facts = dict(entry[4])
        return Scanned(
            entry[2], entry[3], Facts(**{**facts, "converted": tuple(facts["converted"])}), Traits(**entry[5])
        )

    def keep(self, row: int, image: Scanned) -> None:
        size, changed = self._stamps.get(row, (0, 0))
        if self._path is None or not changed or time.time() - changed / 1e9 < _FRESH:
            return
        entry = [size, changed, image.sha256, image.pixels_sha256, asdict(image.facts), asdict(image.traits)]
        self._known[self._listing.samples[row].path] = entry
        self._changed = True

    def save(self) -> None:
        if self._path is not None and self._changed:
            body = json.dumps(self._known, ensure_ascii=True, separators=(",", ":")).encode()
            atomic_write(self._path, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


# --- faults of the data set as a whole ----------------------------------------------------------------------


def _check_classes(found: Scan) -> None:
    counts = dict.fromkeys(found.listing.classes, 0)
    for row in found.rows:
        counts[found.listing.samples[row].label] += 1
    empty = [name for name, count in counts.items() if not count]
    if empty:
        raise DataError(
            f"every class must have readable images, but {len(empty)} of {len(counts)} classes have none; add images "
            "to these classes or remove them:\n" + listed(empty)
        )
    if len(counts) < 2:
        name, count = next(iter(counts.items()))
        raise DataError(
            f"there must be at least two classes, but the data have one: {name} with {count} images; "
            "use one folder (or label) for each class."
        )


def copies(found: Scan) -> Iterator[list[int]]:
    """Return the positions in `found.images` of every image that occurs more than once, as file or as pixels."""
    same: dict[str, list[int]] = defaultdict(list)
    for position, image in enumerate(found.images):
        same[image.pixels_sha256].append(position)  # equal files decode to equal pixels
    yield from (positions for positions in same.values() if len(positions) > 1)


def _check_copies(found: Scan, config: DataConfig) -> None:
    """Refuse an image with two labels and, unless `dedupe` is train, an image in two fixed parts."""
    labels, parts = [], []
    for positions in copies(found):
        samples = [found.listing.samples[found.rows[position]] for position in positions]
        first = samples[0]
        labels += [f"{first.path} = {other.path}" for other in samples[1:] if other.label != first.label]
        fixed = {sample.fixed_split: sample for sample in reversed(samples) if sample.fixed_split}
        if len(fixed) > 1:
            named = [fixed[part] for part in PARTS if part in fixed]
            parts.append(" = ".join(f"{sample.path} ({sample.fixed_split})" for sample in named))
    if labels:
        raise DataError(
            f"copies of an image must have one label, but {len(labels)} pairs have two labels; keep the right copy:\n"
            + listed(labels)
        )
    if parts and config.dedupe.exact == "error":
        raise DataError(
            f"an image must be in one part of the split, but {len(parts)} images are in several; "
            "remove the copies, or set data.dedupe: train:\n" + listed(parts)
        )
