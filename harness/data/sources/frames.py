"""Frames: with `data.frames: each`, every plane of a stack, time series or animation is an image of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness.data.decoding.decode import count_frames, quiet
from harness.data.decoding.raw import read_bytes
from harness.data.decoding.rules import ReadingRules
from harness.data.parallel import over_images
from harness.data.sources.listing import Frame, Listing, Sample, Stored, by_bytes
from harness.errors import DataError


def expand_frames(listing: Listing, rules: ReadingRules) -> Listing:
    """Return the listing with a sample for each frame of every file that has several.

    A sample is named like `b/stack.tif frame 07`, counted from 0. The frames of one file are one group unless the
    source gives the image a group, because they show nearly the same. A file that cannot be read stays one sample, so
    that the scan names it.
    """
    counts = [1] * len(listing.samples)
    with quiet():
        over_images(lambda row: _count(listing.fetch(row), rules), range(len(counts)), counts.__setitem__)
    found: list[tuple[Sample, int, int | None]] = []
    for row, (sample, count) in enumerate(zip(listing.samples, counts, strict=True)):
        if count < 2:
            found.append((sample, row, None))
            continue
        digits = len(str(count - 1))
        group = sample.group or sample.path
        found += [
            (replace(sample, path=f"{sample.path} frame {number:0{digits}d}", group=group), row, number)
            for number in range(count)
        ]
    if len(found) == len(listing.samples):
        return listing
    found.sort(key=lambda entry: by_bytes(entry[0].path))

    def fetch(index: int) -> Stored:
        _, row, number = found[index]
        stored = listing.fetch(row)
        return Frame(stored, number) if number is not None and isinstance(stored, Path) else stored

    files = sum(count > 1 for count in counts)
    return replace(
        listing,
        samples=tuple(sample for sample, _, _ in found),
        fetch=fetch,
        group_rule=listing.group_rule or "frames of one file",
        notes=(*listing.notes, f"{files} files have several frames, each of which is an image."),
    )


def _count(stored: Stored, rules: ReadingRules) -> int:
    """Return the number of frames of a file; 1 if it is not a file, or cannot be read."""
    if not isinstance(stored, Path):
        return 1
    try:
        return count_frames(read_bytes(stored, rules.max_pixels), rules)
    except (DataError, OSError):
        return 1
