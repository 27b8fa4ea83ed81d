"""One function over many images on a few threads; the decoders let go of the interpreter while they work."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Progress = Callable[[int, int], None]
T = TypeVar("T")
_CHUNK = 32  # images a task: small ones cost less than handing them over


def over_images(work: Callable[[int], T], count: int, progress: Progress | None = None) -> list[T]:
    """[work(0), …, work(count - 1)]; `progress(done, count)` is called from this thread.

    The first error ends it, and so does an interrupt: what was not begun is cancelled.
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
