"""The scan: read every image once, before the first trial, to find unreadable files and copies.

All faults of the data set are reported together. What was found is stored while the scan goes on, by (path, size, time
of change), so that the next start does not read unchanged files again. An image is also resized while it is in memory,
for the arrays that the study will need: see `harness.data.staging`.
"""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.atomic import disk_errors
from harness.config.data import DataConfig
from harness.config.fit import Fit
from harness.data.decoder_pool import Answer
from harness.data.decoding.rules import rules_of
from harness.data.memory import Images, Memory
from harness.data.parallel import Progress, read_images
from harness.data.reading import FACTS
from harness.data.sources.listing import PARTS, Listing, told
from harness.data.sources.open_source import list_source
from harness.data.staged_rows import row_bytes
from harness.data.staging import Staging, assign_slots, remove_abandoned
from harness.errors import DataError
from harness.safe_text import listed

_DEEP = FACTS.index("deep")
_KEY = "data."  # in a reason that names a key of the study as the way out, which is the same for all such files
_EXAMPLES, _MOST_LISTED = 3, 50  # unreadable files that a refusal names: of such a reason, and in all
FLUSH_SECONDS = 5.0  # of work that a kill may lose


@dataclass(frozen=True)
class Scan:
    """The result of a scan; `images[i]` belongs to `listing.samples[rows[i]]`."""

    listing: Listing
    rows: Sequence[int]
    images: Images
    skipped: tuple[tuple[str, str], ...]  # (path, reason) of unreadable files, with `on_bad: skip`


def scan(config: DataConfig, *, cache: Path, sizes: Sequence[Fit] = (), progress: Progress | None = None) -> Scan:
    """Read all images of the source once.

    Args:
        cache: folder for downloads and for the results of earlier scans.
        sizes: pixels a side of the arrays that will be needed; files that are read are resized for them on the way.
        progress: called with (images done, images in all), from this thread.

    Raises:
        ConfigError, ResourceError: the source's name is wrong, or the source cannot be reached; there is not enough
            memory or disk space.
        DataError: with `on_bad: error`, some files cannot be read (all are listed); there are fewer than two classes;
            a class has no images; or an image has two labels or is in two parts that the user fixed.
    """
    listing = list_source(config, cache=cache)
    memory = Memory(listing, rules_of(config).cache_key(), cache=cache)
    reasons = _read_unknown(memory, listing, config, sizes, cache, progress)
    bad = [(listing.samples[row].path, reason) for row, reason in sorted(reasons.items())]
    if bad and config.on_bad == "error":
        raise _unreadable(bad, len(listing.samples))
    found = Scan(listing, memory.rows(), memory.images(), tuple(bad))
    with told(listing.reading):
        _check_classes(found)
        _check_copies(found, config)
    return found


class Recorder:
    """Stores what is found in images: in the scan's memory and in the index of every staging, every few seconds."""

    def __init__(self, stagings: Sequence[Staging], slots: Mapping[int, int], memory: Memory | None = None) -> None:
        self._stagings, self._slots, self._memory = stagings, slots, memory
        self._next = time.monotonic() + FLUSH_SECONDS

    def keep(self, row: int, answer: Answer) -> None:
        """Keep what was found in one readable image."""
        deep = bool(answer.values[2][_DEEP])
        for staging, check in zip(self._stagings, answer.checks, strict=True):
            staging.note(self._slots[row], answer.values[1], check, deep=deep)
        if self._memory is not None:
            self._memory.keep(row, answer.values)
        if time.monotonic() >= self._next:
            self.flush()

    def flush(self) -> None:
        """Store it. The stagings come first: what the memory knows is not read again."""
        for staging in self._stagings:
            staging.flush()
        if self._memory is not None:
            self._memory.flush()
        self._next = time.monotonic() + FLUSH_SECONDS


def _read_unknown(
    memory: Memory, listing: Listing, config: DataConfig, sizes: Sequence[Fit], cache: Path, progress: Progress | None
) -> dict[int, str]:
    """Read the files that the memory does not know into it; return the reason for each that cannot be read."""
    rows, count = memory.unknown(), len(listing.samples)
    reasons: dict[int, str] = {}
    done = count - len(rows)

    def receive(row: int, answer: Answer) -> None:
        nonlocal done
        if answer.bad is None:
            recorder.keep(row, answer)
        else:
            reasons[row] = answer.bad
        done += 1
        if progress is not None:
            progress(done, count)

    with disk_errors(cache), ExitStack() as owned:
        stagings = []
        for size in _staged_sizes(listing, config, sizes, len(rows), cache):
            staging = Staging(listing, config, size, cache=cache)
            if owned.enter_context(staging.held(wait=False)):
                stagings.append(staging)
        needed: set[int] = set()
        for staging in stagings:
            needed.update(staging.slots_of(memory.rows(), memory.images().pixel_digests()).tolist())
        slots = assign_slots(rows, needed, count)
        recorder = Recorder(stagings, slots, memory)
        try:
            read_images(listing, slots, config, [one.target for one in stagings], receive, memory.about_to_read)
        finally:
            recorder.flush()
        memory.tidy()
    if progress is not None and not rows:
        progress(count, count)
    return reasons


def _staged_sizes(listing: Listing, config: DataConfig, sizes: Sequence[Fit], rows: int, cache: Path) -> Sequence[Fit]:
    """Return the sizes to resize to during the scan.

    There are none for images in memory, which every start reads again; for pixels that depend on the split; for all
    channels of a file, whose number is not known yet; and on a disk that is too full, which is reported once it is
    known that an array must be made.
    """
    if listing.root is None or not rows or config.bit_depth == "used" or config.channels == "all":
        return ()
    remove_abandoned(cache)
    needed = sum(row_bytes(size.side, deep=False) for size in sizes) * rows
    return sizes if shutil.disk_usage(cache).free > needed * 1.02 + (16 << 20) else ()


def _unreadable(bad: Sequence[tuple[str, str]], count: int) -> DataError:
    """Return the refusal of files that cannot be read; a reason that many files share is told once.

    Args:
        bad: path and reason of each.
        count: images in all.
    """
    paths: dict[str, list[str]] = defaultdict(list)
    for path, reason in bad:
        paths[reason].append(path)
    lines = []
    for reason, of_reason in paths.items():
        if _KEY not in reason:
            lines += [f"{path}: {reason}" for path in of_reason]
            continue
        more = f" and {len(of_reason) - _EXAMPLES:,} more" if len(of_reason) > _EXAMPLES else ""
        lines.append(f"{', '.join(of_reason[:_EXAMPLES])}{more}: {reason}")
    by_keys = len(bad) == count and all(_KEY in reason for reason in paths)
    way = " with the keys as they are" if by_keys else "; repair or remove them, or set data.on_bad: skip"
    return DataError(f"{len(bad):,} of {count:,} images cannot be read{way}:\n" + listed(lines, _MOST_LISTED))


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
    # Equal files decode to equal pixels. The first 8 bytes find the candidates in little memory.
    starts = np.frombuffer(found.images.pixel_digests(8).tobytes(), np.uint64)
    order = np.argsort(starts, kind="stable")
    repeated = np.flatnonzero(np.diff(starts[order]) == 0)
    same: dict[str, list[int]] = defaultdict(list)
    for position in sorted({*order[repeated].tolist(), *order[repeated + 1].tolist()}):
        same[found.images[position].pixels_sha256].append(position)
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
