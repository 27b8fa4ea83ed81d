"""Resume files: a long trial saves its state at the end of an epoch and continues from it if it was killed."""

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
from harness.config.initial_weights import Weights
from harness.model.transfer import TransferModel
from harness.results.compressed import is_stored
from harness.results.records import EpochRecord, TrialJob
from harness.training import checkpoint as checkpoint_files
from harness.training.ema import Average
from harness.training.record_builder import RecordBuilder
from harness.training.trial_data import TrialData


@dataclass
class TrainingState:
    """Everything that changes while a trial trains."""

    model: TransferModel
    optimizer: torch.optim.Optimizer
    average: Average | None
    tensors: dict[str, Tensor]  # the model's own tensors that may become different from the starting weights
    best: dict[str, Tensor] = field(default_factory=dict)  # copies of them on the CPU, from the best epoch


class ResumeFile:
    """The resume file of one trial; each save replaces the one before.

    Args:
        path: the file; None saves nothing.
        every: least number of seconds between two saves. A save is made only at the end of an epoch.
        identity: returns a digest of everything that the next epoch depends on. A file with another digest is ignored.
    """

    def __init__(self, path: Path | None, every: float, identity: Callable[[], str]) -> None:
        self._path, self._every, self._identity = path, every, identity
        self._saved_at = time.monotonic()

    def save_if_due(self, training_state: TrainingState, builder: RecordBuilder) -> None:
        """Save the state of the trial if the last save was long enough ago."""
        if self._path is None or time.monotonic() - self._saved_at < self._every:
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
        self._saved_at = time.monotonic()

    def restore(self, training_state: TrainingState, builder: RecordBuilder) -> list[EpochRecord]:
        """Restore the saved state and return the records of the epochs that are done; [] if nothing was saved.

        The caller adds the records to the builder.
        """
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
    job: TrialJob, data: TrialData, weights: Weights, objective: str, device: torch.device, micro_batch: int | None
) -> str:
    """Return a digest of everything that the next epoch of a trial depends on."""
    rows = [hashlib.sha256(part.tobytes()).hexdigest() for part in (data.train, data.validation, data.keys)]
    return identity(
        job.trial_id, job.config.key(), job.seed, job.split, repr(weights), objective, device.type, micro_batch, *rows
    )


@dataclass(frozen=True)
class ResumePoint:
    """The state of a trial after an epoch: all that it needs to continue with the same results.

    No state of a random generator is saved, because every random number is derived from (seed, epoch, step).
    """

    identity: str  # digest of job, data and weights; see `identity_of`
    epochs: list[dict[str, Any]]  # EpochRecords as JSON values
    best_tensors: dict[str, Tensor]
    warnings: list[str]
    seconds: float  # used so far
    tensors: dict[str, Tensor]
    optimizer: dict[str, Any]
    average: dict[str, Any] | None

    def save(self, path: Path) -> None:
        """Write the file atomically.

        Raises:
            DiskFullError: the disk is full.
        """
        buffer = io.BytesIO()
        torch.save(vars(self), buffer)
        atomic_write(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path, identity: str) -> ResumePoint | None:
        """Read a file; return None if it is missing or damaged or has another identity.

        Loads tensors and plain values only, so a file cannot run code, and nothing that would have to be unpacked.
        """
        if not is_stored(path):
            return None
        try:
            point = cls(**torch.load(path, map_location="cpu", weights_only=True))
        except Exception:  # a damaged file fails in many ways; in each case the trial starts from its first epoch
            return None
        return point if point.identity == identity else None


def identity(*parts: object) -> str:
    """Return sixteen hex digits of a digest of these values, which are compared by their text."""
    return hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).hexdigest()[:16]
