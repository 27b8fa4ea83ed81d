"""PipelineChoice: selects the input pipeline of each phase of a trial: cached activations if possible, else images.

Apart from `run_trial`, so that the reasons against cached activations and a full disk are handled in one place.
"""

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
    """The input pipeline of a trial, chosen anew for each phase.

    Args:
        split: name of the trial's split.
        choice: the arithmetic of the trial.
        reasons: dictionary that gets a key for each reason why activations were not shared, in the order of occurrence.
    """

    def __init__(
        self,
        worker_cache: WorkerCache,
        setup: loop.TrainingSetup,
        split: str,
        initial: InitialModel,
        normalise: Normalise,
        choice: Choice,
        device: torch.device,
        clock: Clock,
        reasons: dict[str, None],
    ) -> None:
        self._reasons = reasons
        self._worker_cache, self._setup, self._split, self._initial = worker_cache, setup, split, initial
        self._choice, self._device, self._clock = choice, device, clock
        self._images = ImagePipeline(setup.data, setup.config, setup.seed, normalise, device, choice)
        self._pipeline: InputPipeline = self._images

    def enter(self, epoch: int) -> None:
        """Choose the pipeline of the phase that begins with this epoch."""
        setup = self._setup
        if setup.micro_batch is not None:
            in_parts = (
                f"trains in micro-batches of {setup.micro_batch}; activations are shared for one batch shape only"
            )
            self._reasons[in_parts] = None
            return
        with self._clock.sharing():
            pipeline, reason = self._worker_cache.pipeline(
                setup.config,
                epoch,
                setup.seed,
                self._split,
                setup.data,
                self._initial,
                self._clock,
                self._device,
                self._choice,
            )
        if reason is not None:
            self._reasons[reason] = None
        self._pipeline = pipeline or self._images

    def begin(self, epoch: int) -> InputPipeline:
        """Prepare the epoch and return its pipeline; if the disk is full, fall back to the images."""
        try:
            self._pipeline.begin(epoch, *loop.epoch_rows(self._setup, epoch))
        except ResourceError as error:
            self._reasons[self._worker_cache.stop_keeping(error)] = None
            self._pipeline = self._images
        return self._pipeline
