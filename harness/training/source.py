"""Which feed a trial reads from, phase by phase: shared activations where it may, images where it may not."""

from __future__ import annotations

import torch

from harness.errors import ResourceError
from harness.training import loop
from harness.training.clock import Clock
from harness.training.feed import Feed, ImageFeed, Normalise
from harness.training.precision import Choice
from harness.training.sharing import Sharing
from harness.training.starting import Starting


class Source:
    """Remembers why frozen work was not shared, where it was not: `reasons`, in the order they came up."""

    def __init__(
        self, sharing: Sharing, course: loop.Course, split: str, starting: Starting, normalise: Normalise,
        choice: Choice, device: torch.device, clock: Clock,
    ) -> None:  # fmt: skip
        self.reasons: dict[str, None] = {}
        self._sharing, self._course, self._split, self._starting = sharing, course, split, starting
        self._choice, self._device, self._clock = choice, device, clock
        self._images = ImageFeed(course.data, course.config, course.seed, normalise, device, choice)
        self._feed: Feed = self._images

    def enter(self, epoch: int) -> None:
        """Choose for the phase that this epoch opens."""
        course = self._course
        with self._clock.sharing():
            feed, reason = self._sharing.feed(
                course.config, epoch, course.seed, self._split, course.data, self._starting, self._clock, self._device,
                self._choice,
            )  # fmt: skip
        if reason is not None:
            self.reasons[reason] = None
        self._feed = feed or self._images

    def begin(self, epoch: int) -> Feed:
        """Have what the epoch needs at hand; where the disk is full, from images after all."""
        try:
            self._feed.begin(epoch, *loop.rows_of(self._course, epoch))
        except ResourceError as error:
            self.reasons[self._sharing.disk_is_full(error)] = None
            self._feed = self._images
        return self._feed
