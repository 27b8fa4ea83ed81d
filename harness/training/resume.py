"""A long trial notes where it stands when an epoch ends, and goes on from there if it was killed."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.atomic import atomic_write
from harness.model.transfer import TransferModel
from harness.results.records import EpochRecord, TrialJob
from harness.training import checkpoint as checkpoint_files
from harness.training.ema import Average
from harness.training.record_builder import RecordBuilder
from harness.training.trial_data import TrialData


@dataclass
class TrainingState:
    """Everything that moves while a trial trains."""

    model: TransferModel
    optimizer: torch.optim.Optimizer
    average: Average | None
    tensors: dict[str, Tensor]  # of the model: those that may come to differ from the weights
    best: dict[str, Tensor] = field(default_factory=dict)  # copies of these, of the best epoch, on the CPU


class ResumeFile:
    """The notes of one trial, each in the place of the one before.

    Args:
        path: where they lie; None makes none.
        every: seconds between two of them; each is made when an epoch ends.
        identity: of everything that the next epoch depends on; a note of another one is not taken up.
    """

    def __init__(self, path: Path | None, every: float, identity: Callable[[], str]) -> None:
        self._path, self._every, self._identity = path, every, identity
        self._noted_at = time.monotonic()

    def save_if_due(self, training_state: TrainingState, builder: RecordBuilder) -> None:
        """Note where the trial stands, if the last note is long enough ago."""
        if self._path is None or time.monotonic() - self._noted_at < self._every:
            return
        average = training_state.average
        ResumePoint(
            identity=self._identity(),
            epochs=[asdict(record) for record in builder.epochs],
            best_tensors=training_state.best,
            warnings=list(builder.warnings),
            seconds=builder.clock.used(),
            tensors=checkpoint_files.copy_to_cpu(training_state.tensors),
            optimizer=training_state.optimizer.state_dict(),
            average=average.state_dict() if average else None,
        ).save(self._path)
        self._noted_at = time.monotonic()

    def restore(self, training_state: TrainingState, builder: RecordBuilder) -> list[EpochRecord]:
        """Put the trial where a note left it; the epochs that are done, still to be added to the builder."""
        point = ResumePoint.load(self._path, self._identity()) if self._path else None
        if point is None:
            return []
        training_state.model.load_state_dict(point.tensors, strict=False)
        training_state.optimizer.load_state_dict(point.optimizer)
        if training_state.average is not None and point.average is not None:
            training_state.average.load_state_dict(point.average)
        training_state.best = point.best_tensors
        builder.clock.add_earlier(point.seconds)
        builder.warnings |= dict.fromkeys(point.warnings)
        return [EpochRecord.from_json(values) for values in point.epochs]


def identity_of(
    job: TrialJob, data: TrialData, weights_name: str, objective: str, device: torch.device, micro_batch: int | None
) -> str:
    """Of a trial: everything that its next epoch depends on."""
    rows = [hashlib.sha256(part.tobytes()).hexdigest() for part in (data.train, data.validation, data.keys)]
    return identity(
        job.trial_id, job.config.key(), job.seed, job.split, weights_name, objective, device.type, micro_batch, *rows
    )


@dataclass(frozen=True)
class ResumePoint:
    """Where a trial stood behind an epoch: all that it needs to go on as if nothing had happened.

    Random numbers need nothing kept: every draw derives from (seed, epoch, step).
    """

    identity: str  # of job, data and weights; a file of another one is not taken
    epochs: list[dict[str, Any]]  # EpochRecords as JSON values
    best_tensors: dict[str, Tensor]
    warnings: list[str]
    seconds: float  # spent so far
    tensors: dict[str, Tensor]
    optimizer: dict[str, Any]
    average: dict[str, Any] | None

    def save(self, path: Path) -> None:
        """Write it, whole or not at all.

        Raises:
            DiskFullError: it does not fit.
        """
        made = io.BytesIO()
        torch.save(vars(self), made)
        atomic_write(path, made.getvalue())

    @classmethod
    def load(cls, path: Path, identity: str) -> ResumePoint | None:
        """What lies there, or None: nothing, a damaged file, or one of another trial. Runs nothing that is in it."""
        try:
            point = cls(**torch.load(path, map_location="cpu", weights_only=True))
        except Exception:  # a damaged file fails in many ways, and the way out of all is to train from the start
            return None
        return point if point.identity == identity else None


def identity(*parts: object) -> str:
    """Sixteen hex digits that stand for these values, compared by their text."""
    return hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).hexdigest()[:16]
