"""The interface of all executors: tasks go in, messages come back.

An executor uses neither Optuna nor MLflow nor the event log. It gets tasks, calls back with messages, and the
callback's return value decides whether a trial goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from harness.config.executors import EXECUTORS
from harness.config.fit import Fit
from harness.config.initial_weights import DEFAULT, Weights, WeightsChoice
from harness.config.trial import Shift, TrialConfig
from harness.results.records import EpochRecord, TrialJob, TrialRecord
from harness.results.trial_id import file_stem
from harness.training.frozen_features.worker_cache import Plan, WorkerCache
from harness.training.neighbours import Neighbours
from harness.training.out_of_memory import NO_FALLBACK, MemoryFallback
from harness.training.precision import Chooser, Precision
from harness.training.trial import weights_of
from harness.training.trial_data import TrialData, on_device


@dataclass(frozen=True)
class WorkerContext:
    """Everything that all trials of a study share. It is small, and is sent to each worker once.

    `labels` holds -1 for every test image, so that no worker can use their classes.
    """

    images: dict[Fit, Path]  # -> .npy
    image_size: int | None  # None: each backbone's native size
    labels: NDArray[np.int64]
    keys: NDArray[np.uint64]  # one for each image; random views are drawn from it
    splits: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]  # name -> rows of train, validation
    classes: tuple[str, ...]
    objective: str
    weights: WeightsChoice
    threads: int
    checkpoints: Path
    plan: Plan  # which activations trials share
    resize_by_weights: bool = False  # the key `resize: weights`
    precision: Precision = "exact"
    precision_notes: Path | None = None  # file with the results of precision probes, for all studies
    own_code: tuple[str, ...] = ()  # backbones that are code of the user; he named them in the study's file

    def worker_cache(self) -> WorkerCache:
        """Make the cache that all trials of one process share."""
        return WorkerCache(self.plan, Chooser(self.precision, self.precision_notes))

    def weights_of(self, config: TrialConfig) -> Weights:
        """Return the weights that a configuration starts from."""
        return weights_of(config.strategy, self.weights.named(config.weights))

    def data(self, backbone: str, split: str, device: torch.device | None = None, weights: str = DEFAULT) -> TrialData:
        """Return the images at this backbone's size with this split; they stay in a GPU's memory if they fit.

        Args:
            weights: the label of the weights, on which the native size depends.
        """
        size = self._fit(backbone, self.weights.named(weights))
        train, validation = self.splits[split]
        source = self.images[size].stem  # the array's name depends on everything that decides its content
        resident = self._resident(size, device) if device is not None and device.type == "cuda" else None
        return TrialData(self._arrays(size), self.labels, self.keys, train, validation, self.classes, source, resident)

    def _fit(self, backbone: str, weights: Weights) -> Fit:
        if self.resize_by_weights:
            return weights.fit(backbone)
        return Fit(self.image_size or weights.native_size(backbone))

    def _resident(self, size: Fit, device: torch.device) -> torch.Tensor | None:
        if (size, device) not in self._moved:
            free, _ = torch.cuda.mem_get_info(device)
            self._moved[size, device] = on_device(self._arrays(size), device, free)
        return self._moved[size, device]

    @cached_property
    def _moved(self) -> dict[tuple[Fit, torch.device], torch.Tensor | None]:
        return {}

    def release(self) -> None:
        """Free the device memory that the images take; `data` moves them there again if it gets a device."""
        self._moved.clear()

    def _arrays(self, size: Fit) -> NDArray[np.uint8]:
        if size not in self._open:
            self._open[size] = np.load(self.images[size], mmap_mode="r")
        return self._open[size]

    @cached_property
    def _open(self) -> dict[Fit, NDArray[np.uint8]]:
        return {}

    def resume(self, job: TrialJob) -> Path:
        """Return the path of the file that a long trial can be resumed from."""
        return self.checkpoint(job).with_suffix(".resume")

    def checkpoint(self, job: TrialJob) -> Path:
        """Return the path of a trial's checkpoint."""
        return self.checkpoints / f"{file_stem(job.trial_id)}.safetensors"


@dataclass(frozen=True)
class ScoreTask:
    """A task: predict class probabilities for these rows (the test part) with a finished trial's model.

    The images may be shifted. `score` is the trial's score on validation: if the checkpoint is missing, the model is
    trained again and must get this score. If it is None, the model is not trained again. `fallback` is as in TrainTask.
    """

    job: TrialJob
    rows: NDArray[np.int64]
    shift: Shift | None = None
    fallback: MemoryFallback = NO_FALLBACK
    score: float | None = None

    @property
    def task_id(self) -> str:
        return f"score {self.job.trial_id}" + (f" {self.shift}" if self.shift else "")

    @property
    def config(self) -> TrialConfig:
        return self.job.config


@dataclass(frozen=True)
class NeighboursTask:
    """A task: answer these rows (the test part) by nearest neighbours on the frozen features of a backbone.

    With each of the splits, neighbours are its training images, and their number is chosen on its validation images.
    `config` is that of `neighbours.reference_config`; `fallback` is as in TrainTask.
    """

    config: TrialConfig
    splits: tuple[str, ...]
    rows: NDArray[np.int64]
    fallback: MemoryFallback = NO_FALLBACK

    @property
    def task_id(self) -> str:
        config = self.config
        return f"neighbours {config.backbone}" + ("" if config.weights == DEFAULT else f" {config.weights}")


@dataclass(frozen=True)
class TrainTask:
    """A task: train one trial.

    `fallback` says which fallbacks were already used after running out of memory. It is sent along when the task moves
    to a new worker.
    """

    job: TrialJob
    fallback: MemoryFallback = NO_FALLBACK

    @property
    def task_id(self) -> str:
        return self.job.trial_id

    @property
    def config(self) -> TrialConfig:
        return self.job.config


Task = TrainTask | ScoreTask | NeighboursTask


@dataclass(frozen=True)
class EpochMessage:
    """A trial finished an epoch and waits for the answer whether to go on."""

    task_id: str
    record: EpochRecord


@dataclass(frozen=True)
class Trained:
    """A trial ended, in any state."""

    task_id: str
    record: TrialRecord


@dataclass(frozen=True)
class Scored:
    """The result of a ScoreTask: probabilities, (rows, classes) float32."""

    task_id: str
    probabilities: NDArray[np.float32]
    note: str | None = None  # which fallbacks were used if memory ran out
    trained_again: bool = False  # its checkpoint was gone or damaged


@dataclass(frozen=True)
class NeighboursFound:
    """The result of a NeighboursTask: the answers with each of its splits."""

    task_id: str
    answers: tuple[Neighbours, ...]


@dataclass(frozen=True)
class Died:
    """The worker died or raised an error; the task was not done."""

    task_id: str
    reason: str


@dataclass(frozen=True)
class FreshWorker:
    """The worker ran out of memory, and the executor must hand the task to a new process. It counts as no attempt."""

    task: Task


@dataclass(frozen=True)
class DiskFull:
    """The disk is full: the task was not done, and another try would fail too."""

    task_id: str
    reason: str


Result = Trained | Scored | NeighboursFound
Message = EpochMessage | Result | Died | DiskFull
Handler = Callable[[Message], bool]  # the answer to an EpochMessage: True goes on, False prunes


class Executor(Protocol):
    """Runs tasks in workers and calls back with messages."""

    @property
    def places(self) -> int:
        """How many tasks may run at once."""

    def submit(self, task: Task) -> None:
        """Start a task; fewer than `places` tasks may be running."""

    def poll(self, handle: Handler, timeout: float) -> None:
        """Call `handle` with each message that has arrived; wait up to `timeout` seconds for the first one."""

    def close(self) -> None:
        """Stop at once, even in the middle of a trial. No worker is running when this returns."""


class MakeExecutor(Protocol):
    """The function `make` that an executor's module must have; see `harness.config.executors`."""

    def __call__(self, context: WorkerContext, devices: Sequence[str]) -> Executor:
        """Make an executor.

        Args:
            context: everything that all trials of the study share.
            devices: one device name for each worker, at least one.
        """


def make_executor(name: str, context: WorkerContext, devices: Sequence[str]) -> Executor:
    """Make the executor that a study file names; `devices` has one entry for each worker."""
    make: MakeExecutor = import_module(EXECUTORS[name].module).make
    return make(context, devices)
