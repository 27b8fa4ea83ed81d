"""The one interface of all executors, what they are asked, and what they answer.

An executor knows neither Optuna nor MLflow nor the event log: it is handed tasks, calls back with messages,
and learns from the callback whether a trial goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from harness.config.backbone_specs import backbone_spec
from harness.config.trial import Shift
from harness.results.records import EpochRecord, TrialJob, TrialRecord
from harness.results.trial_id import file_stem
from harness.training.frozen_features.worker_cache import Plan, WorkerCache
from harness.training.out_of_memory import NO_FALLBACK, MemoryFallback
from harness.training.precision import Chooser, Precision
from harness.training.trial_data import TrialData, on_device


@dataclass(frozen=True)
class WorkerContext:
    """What every trial of a study shares; small enough to be sent to a worker once.

    `labels` holds -1 for every test image: a searching worker has no way to their classes.
    """

    images: dict[int, Path]  # image side in pixels -> .npy
    image_size: int | None  # None: each backbone's native size
    labels: NDArray[np.int64]
    keys: NDArray[np.uint64]
    splits: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]  # name -> rows of train, validation
    classes: tuple[str, ...]
    objective: str
    weights: str
    threads: int
    checkpoints: Path
    plan: Plan  # of what trials share
    precision: Precision = "exact"
    precision_notes: Path | None = None  # what probes chose, for all studies

    def sharing(self) -> WorkerCache:
        """What trials of this process will share."""
        return WorkerCache(self.plan, Chooser(self.precision, self.precision_notes))

    def data(self, backbone: str, split: str, device: torch.device | None = None) -> TrialData:
        """The images at this backbone's size, cut by this split; kept in a GPU's memory where it has the room."""
        size = self.image_size or backbone_spec(backbone).native_size
        train, validation = self.splits[split]
        source = self.images[size].stem  # the array's name holds all that decides its content
        resident = self._resident(size, device) if device is not None and device.type == "cuda" else None
        return TrialData(self._arrays(size), self.labels, self.keys, train, validation, self.classes, source, resident)

    def _resident(self, size: int, device: torch.device) -> torch.Tensor | None:
        if (size, device) not in self._moved:
            free, _ = torch.cuda.mem_get_info(device)
            self._moved[size, device] = on_device(self._arrays(size), device, free)
        return self._moved[size, device]

    @cached_property
    def _moved(self) -> dict[tuple[int, torch.device], torch.Tensor | None]:
        return {}

    def release(self) -> None:
        """Give back what a device holds of the images; `data` moves them there again if asked to."""
        self._moved.clear()

    def _arrays(self, size: int) -> NDArray[np.uint8]:
        if size not in self._open:
            self._open[size] = np.load(self.images[size], mmap_mode="r")
        return self._open[size]

    @cached_property
    def _open(self) -> dict[int, NDArray[np.uint8]]:
        return {}

    def resume(self, job: TrialJob) -> Path:
        """Where a long trial notes how far it is."""
        return self.checkpoint(job).with_suffix(".resume")

    def checkpoint(self, job: TrialJob) -> Path:
        """Where a trial's tensors lie."""
        return self.checkpoints / f"{file_stem(job.trial_id)}.safetensors"


@dataclass(frozen=True)
class ScoreTask:
    """Class probabilities of a finished trial's model for these rows (the test part), as they are or shifted.

    `score` is what the trial scored on validation: a model whose checkpoint is gone is trained again, and must score
    the same. None: it is not trained again.
    """

    job: TrialJob
    rows: NDArray[np.int64]
    shift: Shift | None = None
    climb: MemoryFallback = NO_FALLBACK
    score: float | None = None

    @property
    def task_id(self) -> str:
        return f"score {self.job.trial_id}" + (f" {self.shift}" if self.shift else "")


@dataclass(frozen=True)
class TrainTask:
    """Train one trial; `climb` tells of earlier tries, where memory ran out."""

    job: TrialJob
    climb: MemoryFallback = NO_FALLBACK

    @property
    def task_id(self) -> str:
        return self.job.trial_id


Task = TrainTask | ScoreTask


@dataclass(frozen=True)
class EpochMessage:
    """A trial finished an epoch and waits for the word to go on."""

    task_id: str
    record: EpochRecord


@dataclass(frozen=True)
class Trained:
    """A trial ended, in whichever state."""

    task_id: str
    record: TrialRecord


@dataclass(frozen=True)
class Scored:
    """The probabilities a ScoreTask asked for, (rows, classes) float32."""

    task_id: str
    probabilities: NDArray[np.float32]
    note: str | None = None  # what it took, where memory ran out
    trained_again: bool = False  # its checkpoint was gone or damaged


@dataclass(frozen=True)
class Died:
    """The worker that had this task is gone, or broke; the task was not done."""

    task_id: str
    reason: str


@dataclass(frozen=True)
class FreshWorker:
    """The worker ran out of memory: its executor hands the task to a new process. No attempt of a trial is counted."""

    task: Task


@dataclass(frozen=True)
class NoRoom:
    """The disk is full: this task was not done, and another try would not do it either."""

    task_id: str
    reason: str


Message = EpochMessage | Trained | Scored | Died | NoRoom
Handler = Callable[[Message], bool]  # the answer to EpochDone: True goes on, False prunes


class Executor(Protocol):
    """Runs tasks and calls back."""

    @property
    def places(self) -> int:
        """How many tasks may run at once."""

    def submit(self, task: Task) -> None:
        """Take a task; there must be a free place."""

    def poll(self, handle: Handler, timeout: float) -> None:
        """Hand over the messages that are there, or wait up to `timeout` seconds for the first one."""

    def close(self) -> None:
        """Stop at once, also in mid-trial; nothing of ours runs when this returns."""


class MakeExecutor(Protocol):
    """What the module of an executor offers under the name `make`; see `harness.config.executors`."""

    def __call__(self, context: WorkerContext, devices: Sequence[str]) -> Executor:
        """Make an executor.

        Args:
            context: what every trial of the study shares.
            devices: one name for each worker that the study asks for, at least one.
        """
