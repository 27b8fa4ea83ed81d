"""Time accounting of a trial: the seconds it spent, those on shared work, and those it would have taken alone.

Activations that one trial computes are read by others. So that the cost of a trial does not depend on which trial ran
first, each trial is charged for the shared work it uses, at measured rates.
"""

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
    """The shared work that a trial used, charged as if the trial had done all of it alone."""

    # By entry of the cache and by view: the deepest cut that was charged, for each image.
    used: dict[str, dict[int, NDArray[np.int8]]] = field(default_factory=dict)
    seconds: float = 0.0

    def charge(self, entry: str, seconds_an_image: Callable[[int], float], cut: int, rows: Ints, numbers: Ints) -> None:
        """Add the cost of these (image, view) pairs, as far as the trial was not charged for them before.

        Args:
            entry: name of the cache entry.
            seconds_an_image: function from a cut to the seconds that the stages before it take for one image.
            cut: number of stages before the cut, 1 to 5.
            rows, numbers: image rows and view numbers of the pairs, of one length.
        """
        views_used = self.used.setdefault(entry, {})
        for view in np.unique(numbers).tolist():
            images = np.unique(rows[numbers == view])
            depth = views_used.setdefault(view, np.zeros(0, np.int8))
            if len(depth) <= images.max():
                depth = views_used[view] = np.pad(depth, (0, int(images.max()) + 1 - len(depth)))
            for charged in np.unique(depth[images]).tolist():
                if charged < cut:
                    count = int((depth[images] == charged).sum())
                    before = seconds_an_image(charged) if charged else 0.0
                    self.seconds += count * (seconds_an_image(cut) - before)
            depth[images] = np.maximum(depth[images], cut)


class Clock:
    """The clock of one trial. It starts when it is created; all times are in seconds.

    Args:
        lost: duration of earlier attempts that ran out of memory. It counts as spent, but not as time that the trial
            would have taken alone.
    """

    def __init__(self, lost: float = 0.0) -> None:
        self.account = Account()  # the shared work that the trial used
        self.shared = 0.0  # spent on work that other trials share
        self.checked = 0.0  # spent on the training contract
        self.set_up = 0.0  # what an earlier trial spent to build the initial model that this one reuses
        self._earlier = 0.0  # used before the trial was killed
        self._lost = lost
        self._waited = 0.0  # for answers of the coordinator
        self._start = time.monotonic()

    def checking(self) -> AbstractContextManager[None]:
        """Count the seconds inside the block as time of the training contract."""
        return self._adding_to("checked")

    def sharing(self) -> AbstractContextManager[None]:
        """Count the seconds inside the block as shared work."""
        return self._adding_to("shared")

    def waiting(self) -> AbstractContextManager[None]:
        """Leave the seconds inside the block out of all counts."""
        return self._adding_to("_waited")

    @contextmanager
    def _adding_to(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + time.monotonic() - started)

    def add_earlier(self, earlier: float) -> None:
        """Add the seconds that a resumed trial had used before."""
        self._earlier = earlier
        # An attempt that was lost had itself resumed from these seconds, or had saved them, so they are part of `lost`.
        self._lost = max(self._lost - earlier, 0.0)

    def spent(self) -> float:
        """Return what the trial really took, without waiting."""
        return self._lost + self._earlier + time.monotonic() - self._start - self._waited

    def used(self) -> float:
        """Return the time as in `spent`, but with the shared work that was used instead of the one that was done."""
        return self.spent() - self._lost - self.shared + self.account.seconds

    def alone(self) -> float:
        """Return what the trial would have taken alone."""
        return self.used() + self.set_up
