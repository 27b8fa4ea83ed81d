"""Where a trial's seconds went: what it spent, what of it was shared work, and what it would have taken alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass
class Account:
    """What a trial used of the shared work, so that it can be charged as if it had been alone."""

    used: dict[str, dict[int, NDArray[np.int8]]] = field(default_factory=dict)  # entry -> view -> deepest cut by image
    seconds: float = 0.0

    def charge(self, entry: str, seconds_an_image: Callable[[int], float], cut: int, rows: Ints, numbers: Ints) -> None:
        """Add what these (image, view) pairs would have cost, those that were not used before.

        Args:
            seconds_an_image: what an image costs up to a cut.
        """
        views_used = self.used.setdefault(entry, {})
        for view in np.unique(numbers).tolist():
            here = np.unique(rows[numbers == view])
            depth = views_used.setdefault(view, np.zeros(0, np.int8))
            if len(depth) <= here.max():
                depth = views_used[view] = np.pad(depth, (0, int(here.max()) + 1 - len(depth)))
            for known in np.unique(depth[here]).tolist():
                if known < cut:
                    count = int((depth[here] == known).sum())
                    before = seconds_an_image(known) if known else 0.0
                    self.seconds += count * (seconds_an_image(cut) - before)
            depth[here] = np.maximum(depth[here], cut)


class Clock:
    """Starts with the trial. All times in seconds."""

    def __init__(self, lost: float = 0.0) -> None:
        """`lost`: what earlier tries took that ran out of memory; spent, but no part of what the trial takes alone."""
        self.account = Account()  # of the shared work that the trial used
        self.shared = 0.0  # spent on work that other trials share
        self.checked = 0.0  # the contract's
        self.set_up = 0.0  # what making the starting model took an earlier trial
        self._earlier = 0.0  # used before a kill
        self._lost = lost
        self._waited = 0.0  # for answers of the coordinator
        self._start = time.monotonic()

    def checking(self) -> AbstractContextManager[None]:
        """Count the seconds inside the block as the contract's."""
        return self._adding_to("checked")

    def sharing(self) -> AbstractContextManager[None]:
        """Count the seconds inside the block as shared work."""
        return self._adding_to("shared")

    def waiting(self) -> AbstractContextManager[None]:
        """Do not count the seconds inside the block."""
        return self._adding_to("_waited")

    @contextmanager
    def _adding_to(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + time.monotonic() - started)

    def add_earlier(self, earlier: float) -> None:
        """Go on where so many seconds had been used before."""
        self._earlier = earlier
        self._lost = max(self._lost - earlier, 0.0)  # a try that was lost had begun with them, or noted them itself

    def spent(self) -> float:
        """What the trial really took, waiting left out."""
        return self._lost + self._earlier + time.monotonic() - self._start - self._waited

    def used(self) -> float:
        """As `spent`, with what it used of shared work in the place of what it spent on it."""
        return self.spent() - self._lost - self.shared + self.account.seconds

    def alone(self) -> float:
        """What the trial would have taken by itself."""
        return self.used() + self.set_up
