"""What a worker is asked to train (TrialJob), and what happened: an EpochRecord an epoch, a TrialRecord a trial.

All are frozen, and go to JSON and back.
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
    """What a worker is asked to train."""

    trial_id: str  # see `trial_id.TrialId`
    kind: Kind
    strategy: str
    slot: int  # of the search; after it the index of the confirmation's seed
    config: TrialConfig
    seed: int  # order, views, initialisation and suffix randomness all derive from it
    split: str  # name of the split it trains on
    attempt: int = 1  # 1 unless a worker died before

    @property
    def key(self) -> str:
        """Names this attempt: see `run_key`."""
        return run_key(self.trial_id, self.attempt)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrialJob:
        """Back from `dataclasses.asdict`."""
        return restored(cls, values | {"config": TrialConfig.from_json(values["config"])})


@dataclass(frozen=True)
class EpochRecord:
    """One epoch: losses are means in nats, scores fractions, rates those of the last step."""

    epoch: int  # 1-based
    train_loss: float
    validation: dict[str, float]  # every metric of results.metrics, and "loss"
    head_lr: float
    backbone_lr: float | None
    seconds: float  # training and evaluation of this epoch, monotonic clock

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> EpochRecord:
        """Back from `dataclasses.asdict`."""
        return restored(cls, values)


@dataclass(frozen=True)
class TrialRecord:
    """One finished trial, of the search or of what comes after it.

    `score` is the objective on validation at `best_epoch`, the epoch chosen on validation; both are None
    where no epoch was completed or the trial diverged. `seconds_alone` is what the trial costs by itself
    on this machine: set-up, recalibration, training and evaluation; waiting is not counted, and work that was shared
    with other trials counts as if this one had done what it used of it. `seconds_spent` is what it really took, with
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
    seconds_spent: float | None = None  # None in records from before it was measured
    shared_seconds: float = 0.0  # of seconds_spent, what went into work that others share
    cache_reason: str | None = None  # why frozen work was not shared, or not all of it; None: it was, in every epoch
    precision: str = "float32"  # arithmetic of training and forward passes
    micro_batch: int | None = None  # images in one pass where memory did not hold a batch; None: it did
    contract_seconds: float = 0.0  # of seconds_alone, what checking the freezing took
    batchnorm_layers: int = 0
    warnings: tuple[str, ...] = ()
    checkpoint: str | None = None  # below the study's folder
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
        """Of the search; after it the index of the confirmation's seed."""
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
        """Plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrialRecord:
        """Back from `to_json`."""
        parts = {
            "job": TrialJob.from_json(values["job"]),
            "epochs": tuple([EpochRecord.from_json(epoch) for epoch in values["epochs"]]),
            "warnings": tuple(values["warnings"]),
        }
        return restored(cls, values | parts)
