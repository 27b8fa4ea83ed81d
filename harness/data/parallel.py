"""Run a function over many images on a few threads. This helps because the decoders release Python's global lock."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Progress = Callable[[int, int], None]
T = TypeVar("T")
_CHUNK = 32  # images in one task, because handing over a small image takes longer than decoding it


def over_images(work: Callable[[int], T], count: int, progress: Progress | None = None) -> list[T]:
    """Return [work(0), …, work(count - 1)]; call `progress(done, count)` from this thread.

    The first error, or an interrupt, cancels all work that has not begun.
    """
    starts = range(0, count, _CHUNK)
    results: list[T] = []
    pool = ThreadPoolExecutor(min(os.cpu_count() or 1, 8))
    try:
        for part in pool.map(lambda start: [work(i) for i in range(start, min(start + _CHUNK, count))], starts):
            results.extend(part)
            if progress is not None:
                progress(len(results), count)
    finally:
        pool.shutdown(cancel_futures=True)
    return results
