"""Which feed a trial reads from, phase by phase: shared activations where it may, images where it may not."""

from __future__ import annotations

import torch

from harness.errors import ResourceError
from harness.training import loop
from harness.training.frozen_features.initial_models import InitialModel
from harness.training.frozen_features.input_pipeline import ImagePipeline, InputPipeline, Normalise
from harness.training.frozen_features.worker_cache import WorkerCache
from harness.training.precision import Choice
from harness.training.timing import Clock


class PipelineChoice:
    """Notes in `reasons` why frozen work was not shared, where it was not, in the order it came up."""

    def __init__(
        self,
        sharing: WorkerCache,
        course: loop.TrainingSetup,
        split: str,
        starting: InitialModel,
        normalise: Normalise,
        choice: Choice,
        device: torch.device,
        clock: Clock,
        reasons: dict[str, None],
    ) -> None:
        self._reasons = reasons
        self._sharing, self._course, self._split, self._starting = sharing, course, split, starting
        self._choice, self._device, self._clock = choice, device, clock
        self._images = ImagePipeline(course.data, course.config, course.seed, normalise, device, choice)
        self._feed: InputPipeline = self._images

    def enter(self, epoch: int) -> None:
        """Choose for the phase that this epoch opens."""
        course = self._course
        if course.micro_batch is not None:
            parts = f"trains in micro-batches of {course.micro_batch}; activations are shared in one batch shape"
            self._reasons[parts] = None
            return
        with self._clock.sharing():
            feed, reason = self._sharing.feed(
                course.config,
                epoch,
                course.seed,
                self._split,
                course.data,
                self._starting,
                self._clock,
                self._device,
                self._choice,
            )
        if reason is not None:
            self._reasons[reason] = None
        self._feed = feed or self._images

    def begin(self, epoch: int) -> InputPipeline:
        """Have what the epoch needs at hand; where the disk is full, from images after all."""
        try:
            self._feed.begin(epoch, *loop.rows_of(self._course, epoch))
        except ResourceError as error:
            self._reasons[self._sharing.disk_is_full(error)] = None
            self._feed = self._images
        return self._feed
