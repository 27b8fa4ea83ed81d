"""A long trial notes where it stands when an epoch ends, and goes on from there if it was killed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from harness.model.transfer import TransferModel
from harness.results.records import EpochRecord, TrialJob
from harness.training import checkpoint as checkpoint_files
from harness.training.average import Average
from harness.training.inputs import TrialData
from harness.training.outcome import Outcome


@dataclass
class Moving:
    """Everything that moves while a trial trains."""

    model: TransferModel
    optimizer: torch.optim.Optimizer
    average: Average | None
    tensors: dict[str, Tensor]  # of the model: those that may come to differ from the weights
    best: dict[str, Tensor] = field(default_factory=dict)  # copies of these, of the best epoch, on the CPU


class Notes:
    """The notes of one trial, each in the place of the one before.

    Args:
        path: where they lie; None makes none.
        every: seconds between two of them; each is made when an epoch ends.
        identity: of everything that the next epoch depends on; a note of another one is not taken up.
    """

    def __init__(self, path: Path | None, every: float, identity: Callable[[], str]) -> None:
        self._path, self._every, self._identity = path, every, identity
        self._noted_at = time.monotonic()

    def note(self, moving: Moving, outcome: Outcome) -> None:
        """Note where the trial stands, if the last note is long enough ago."""
        if self._path is None or time.monotonic() - self._noted_at < self._every:
            return
        average = moving.average
        checkpoint_files.Standing(
            identity=self._identity(), epochs=[asdict(record) for record in outcome.epochs],
            best_tensors=moving.best, warnings=list(outcome.warnings), seconds=outcome.clock.used(),
            tensors=checkpoint_files.copied(moving.tensors),
            optimizer=moving.optimizer.state_dict(), average=average.state_dict() if average else None,
        ).save(self._path)  # fmt: skip
        self._noted_at = time.monotonic()

    def take_up(self, moving: Moving, outcome: Outcome) -> list[EpochRecord]:
        """Put the trial where a note left it; the epochs that are done, still to be added to the outcome."""
        standing = checkpoint_files.Standing.load(self._path, self._identity()) if self._path else None
        if standing is None:
            return []
        moving.model.load_state_dict(standing.tensors, strict=False)
        moving.optimizer.load_state_dict(standing.optimizer)
        if moving.average is not None and standing.average is not None:
            moving.average.load_state_dict(standing.average)
        moving.best = standing.best_tensors
        outcome.clock.take_up(standing.seconds)
        outcome.warnings |= dict.fromkeys(standing.warnings)
        return [EpochRecord.from_json(values) for values in standing.epochs]


def identity_of(
    job: TrialJob, data: TrialData, weights_name: str, objective: str, device: torch.device, micro_batch: int | None
) -> str:
    """Of a trial: everything that its next epoch depends on."""
    rows = [hashlib.sha256(part.tobytes()).hexdigest() for part in (data.train, data.validation, data.keys)]
    return checkpoint_files.identity(
        job.trial_id, job.config.key(), job.seed, job.split, weights_name, objective, device.type, micro_batch, *rows
    )
