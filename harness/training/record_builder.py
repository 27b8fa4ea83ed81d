"""RecordBuilder: collects the results of a trial while it trains, and makes its TrialRecord, however the trial ends."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from harness.config import unfreezing
from harness.model import batchnorm
from harness.model.transfer import TransferModel
from harness.results import metrics
from harness.results.records import EpochRecord, State, TrialJob, TrialRecord
from harness.training.out_of_memory import MemoryFallback
from harness.training.precision import EXACT
from harness.training.timing import Clock


class RecordBuilder:
    """The results of a trial so far. Each warning and reason is kept once, in the order of its first occurrence.

    Args:
        objective: the metric that decides which epoch is the best.
        fallback: what was done because earlier attempts at this trial ran out of memory.
    """

    def __init__(self, job: TrialJob, objective: str, device: torch.device, fallback: MemoryFallback) -> None:
        self.clock = Clock(lost=fallback.seconds)
        self.epochs: list[EpochRecord] = []
        self.best: EpochRecord | None = None
        self.choice = EXACT
        self.l2: float | None = None
        self.cache_reasons: dict[str, None] = {}
        self.warnings: dict[str, None] = {}
        self.objective = objective
        self._job, self._device, self._fallback = job, device, fallback
        self._trainable = self._total = self._batchnorm_layers = 0
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")
        if device.type == "cuda":
            # reset_peak_memory_stats does not initialise CUDA, and this may be the first use of the GPU.
            torch.cuda.init()  # type: ignore[no-untyped-call]
            torch.cuda.reset_peak_memory_stats(device)

    def count(self, model: TransferModel, names: frozenset[str]) -> None:
        """Count all parameters, those that train in any epoch (`names`), and the BatchNorm layers."""
        self._total = sum(p.numel() for p in model.parameters())
        self._trainable = sum(p.numel() for name, p in model.named_parameters() if name in names)
        self._batchnorm_layers = batchnorm.count(model)

    def warn(self, text: str) -> None:
        """Add a warning to the record."""
        self.warnings[text] = None

    def add(self, record: EpochRecord) -> bool:
        """Add an epoch and return whether it is the best one so far."""
        self.epochs.append(record)
        sign = metrics.sign_of(self.objective)
        score = record.validation[self.objective]
        better = self.best is None or sign * score > sign * self.best.validation[self.objective]
        if better:
            self.best = record
        return better

    def patience_ended(self, epoch: int) -> bool:
        """Return whether early stopping ends the trial: `early_stopping` epochs without a better score.

        Epochs are counted from the first one in which every tensor trains that ever does.
        """
        config = self._job.config
        if config.early_stopping == 0 or self.best is None:
            return False
        since = max(self.best.epoch, unfreezing.last_phase(config) - 1)
        return epoch - since >= config.early_stopping

    def to_record(self, state: State, reason: str | None, checkpoint: Path | None) -> TrialRecord:
        """Return the record of the trial in its final state.

        Args:
            reason: why the trial did not complete; None if it did.
            checkpoint: file of the best epoch's tensors. The record names it only if the trial is complete.
        """
        job, device, clock = self._job, self._device, self.clock
        fallbacks = self._fallback.describe(job.config.batch_size)
        best = self.best if state in ("complete", "pruned") else None
        return TrialRecord(
            job=job,
            state=state,
            reason=reason,
            epochs=tuple(self.epochs),
            best_epoch=best.epoch if best else None,
            score=best.validation[self.objective] if best else None,
            seconds_alone=clock.alone(),
            seconds_spent=clock.spent(),
            shared_seconds=clock.shared,
            cache_reason="; ".join(self.cache_reasons) or None,
            precision=str(self.choice),
            micro_batch=self._fallback.micro_batch,
            contract_seconds=clock.checked,
            trainable_parameters=self._trainable,
            total_parameters=self._total,
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            started_at=self._started_at,
            device_memory_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
            batchnorm_layers=self._batchnorm_layers,
            warnings=((fallbacks,) if fallbacks else ()) + tuple(self.warnings),
            l2=self.l2,
            checkpoint=checkpoint.name if checkpoint and state == "complete" else None,
        )


def epoch_record(
    epoch: int,
    train_loss: float,
    probabilities: NDArray[np.float32],
    labels: NDArray[np.int64],
    optimizer: torch.optim.Optimizer,
    seconds: float,
) -> EpochRecord:
    """Return the record of an epoch that has just ended.

    Args:
        train_loss: mean over the epoch, in nats.
        probabilities: (N, C), of the validation images.
        labels: (N,), of the validation images.
        optimizer: its groups hold the learning rates of the epoch's last step.
        seconds: duration of the epoch.
    """
    scores = metrics.all_metrics(probabilities, labels)
    rates = {group["stage"]: group["lr"] for group in optimizer.param_groups}
    backbone = [rate for stage, rate in rates.items() if stage != "head"]
    return EpochRecord(
        epoch=epoch,
        train_loss=train_loss,
        validation={**scores, "loss": scores["log_loss"]},
        head_lr=rates["head"],
        backbone_lr=max(backbone) if backbone else None,
        seconds=seconds,
    )
