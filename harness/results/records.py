"""The job of a trial (TrialJob) and its results: an EpochRecord for each epoch, a TrialRecord for the whole trial.

All are frozen dataclasses that can be written to JSON and read back. The log, the workers and the report share them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.config.from_json import restored
from harness.config.trial import TrialConfig
from harness.results.trial_id import Kind, run_key

State = Literal["complete", "pruned", "diverged", "out_of_memory", "failed"]
STATES: tuple[State, ...] = ("complete", "pruned", "diverged", "out_of_memory", "failed")


@dataclass(frozen=True)
class TrialJob:
    """A trial that a worker has to train."""

    trial_id: str  # see `trial_id.TrialId`
    kind: Kind
    strategy: str
    slot: int  # slot of the search; for later trials the index of the confirmation's seed
    config: TrialConfig
    seed: int  # image order, augmented views, initialisation and dropout all derive from it
    split: str  # name of the split that the trial trains on
    attempt: int = 1  # 1 unless a worker died before

    @property
    def key(self) -> str:
        """The key of this attempt: see `run_key`."""
        return run_key(self.trial_id, self.attempt)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrialJob:
        """Return the job that `dataclasses.asdict` made these values of."""
        return restored(cls, values | {"config": TrialConfig.from_json(values["config"])})


@dataclass(frozen=True)
class EpochRecord:
    """One epoch. Losses are means in nats, scores are fractions, learning rates are those of the last step."""

    epoch: int  # 1-based
    train_loss: float
    validation: dict[str, float]  # every metric of results.metrics, and "loss"
    head_lr: float
    backbone_lr: float | None
    seconds: float  # training and evaluation of this epoch, monotonic clock

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> EpochRecord:
        """Return the record that `dataclasses.asdict` made these values of."""
        return restored(cls, values)


@dataclass(frozen=True)
class TrialRecord:
    """One finished trial, of the search or of a later part of the study.

    `score` is the objective on validation at `best_epoch`, the epoch with the best such score; both are None if no
    epoch was completed or the trial diverged. `seconds_alone` is the time that the trial would take by itself on this
    machine: set-up, recalibration, training and evaluation. Waiting is not counted, and work that was shared with other
    trials counts as if this trial had done the part that it used. `seconds_spent` is the time that it really took, with
    the tries that ran out of memory.
    """

    job: TrialJob
    state: State
    reason: str | None  # why it is not complete
    epochs: tuple[EpochRecord, ...]
    best_epoch: int | None
    score: float | None
    seconds_alone: float
    trainable_parameters: int
    total_parameters: int
    device: str
    started_at: str  # UTC, ISO 8601
    device_memory_bytes: int | None = None  # peak on the device; None on a CPU
    seconds_spent: float | None = None  # None in old records, which did not measure it
    shared_seconds: float = 0.0  # part of seconds_spent: work that other trials share
    cache_reason: str | None = None  # why frozen work was not shared in every epoch; None: it was shared in every one
    precision: str = "float32"  # arithmetic of training and forward passes
    micro_batch: int | None = None  # images in one pass if a batch did not fit into memory; None: it did
    contract_seconds: float = 0.0  # part of seconds_alone: checking the contract of the freezing
    batchnorm_layers: int = 0
    warnings: tuple[str, ...] = ()
    checkpoint: str | None = None  # file name in the study's `checkpoints` folder
    l2: float | None = None  # L2 strength that the logistic head solver chose on validation
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def trial_id(self) -> str:
        return self.job.trial_id

    @property
    def kind(self) -> Kind:
        return self.job.kind

    @property
    def strategy(self) -> str:
        return self.job.strategy

    @property
    def slot(self) -> int:
        """Slot of the search; for later trials the index of the confirmation's seed."""
        return self.job.slot

    @property
    def config(self) -> TrialConfig:
        return self.job.config

    @property
    def seed(self) -> int:
        return self.job.seed

    @property
    def attempt(self) -> int:
        return self.job.attempt

    @property
    def trainable_share(self) -> float:
        """Trainable parameters as a fraction of all, in [0, 1]."""
        return self.trainable_parameters / max(self.total_parameters, 1)

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrialRecord:
        """Return the record that `to_json` made these values of.

        Raises:
            ValueError: the checkpoint is no file name. A path could lead out of the folder, and old files are removed.
        """
        name = values.get("checkpoint")
        if name is not None and ("/" in name or name in ("", ".", "..")):
            raise ValueError(f"a checkpoint must be a file name, but got {name!r}")
        parts = {
            "job": TrialJob.from_json(values["job"]),
            "epochs": tuple([EpochRecord.from_json(epoch) for epoch in values["epochs"]]),
            "warnings": tuple(values["warnings"]),
        }
        return restored(cls, values | parts)
