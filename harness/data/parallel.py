"""Run a function over many images: over files in processes that may die, over images in memory on a few threads.

Threads help because the decoders release Python's global lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from harness.config.data import DataConfig
from harness.data.decoder_pool import Answer, DecoderPool
from harness.data.decoding import decode
from harness.data.reading import examine
from harness.data.sources.listing import Frame, Listing
from harness.data.staged_rows import Target
from harness.errors import DataError

Progress = Callable[[int, int], None]
T = TypeVar("T")
_CHUNK = 32  # images in one task, because handing over a small image takes longer than decoding it
_MOST = 64  # processes


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_images(
    listing: Listing,
    slots: Mapping[int, int],
    config: DataConfig,
    targets: Sequence[Target],
    receive: Callable[[int, Answer], None],
    about_to_read: Callable[[int], None] = lambda row: None,
) -> None:
    """Read the image of every row, write it at every target's size, and call `receive` with what was found.

    `slots` has the slot for each row that is read. `receive` is called from this thread, in the order in which images
    are done; `about_to_read`, if the images are files, before a file is read. An error, or an interrupt, ends all work.
    A file that makes its decoder crash counts as unreadable: see `harness.data.decoder_pool`.

    Raises:
        ResourceError: an image does not fit into the memory, or no process can be started.
        OSError: a resized image cannot be written.
    """
    rows = list(slots)
    if not rows:
        return

    def path_of(row: int) -> Path | Frame:
        source = listing.fetch(row)
        assert isinstance(source, Path | Frame)  # a listing with a root consists of files
        about_to_read(row)
        return source

    try:
        if listing.root is None or not hasattr(os, "fork"):
            with decode.quiet():
                over_images(
                    lambda row: _answer(listing, row, slots[row], config, targets, about_to_read), rows, receive
                )
            return
        lanes = max(1, min(cores(), _MOST, len(rows) // 8))
        with DecoderPool(config, targets, lanes) as pool:
            pool.run(slots, path_of, receive)
    finally:
        for target in targets:
            target.close()


def over_images(work: Callable[[int], T], rows: Iterable[int], receive: Callable[[int, T], None]) -> None:
    """Call `work` with every row on a few threads, and `receive` with each row and its result from this thread.

    The first error, or an interrupt, cancels all work that has not begun.
    """
    order = list(rows)
    pool = ThreadPoolExecutor(min(cores(), 8))
    try:
        parts = [order[start : start + _CHUNK] for start in range(0, len(order), _CHUNK)]
        for part, results in zip(parts, pool.map(lambda part: [work(row) for row in part], parts), strict=True):
            for row, result in zip(part, results, strict=True):
                receive(row, result)
    finally:
        pool.shutdown(cancel_futures=True)


def _answer(
    listing: Listing,
    row: int,
    slot: int,
    config: DataConfig,
    targets: Sequence[Target],
    about_to_read: Callable[[int], None],
) -> Answer:
    about_to_read(row)
    try:
        return Answer(*examine(listing.fetch(row), config, targets, slot))
    except DataError as error:
        return Answer([], [], str(error))
