"""run_trial: one configuration, trained once, from a job to a TrialRecord. Needs neither Optuna nor MLflow."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from harness.config.trial import BatchNormPolicy, TrialConfig
from harness.errors import ContractError, ResourceError
from harness.model import batchnorm, freezing
from harness.model.freezing import names_any_epoch
from harness.model.param_groups import param_groups
from harness.model.transfer import TransferModel, build
from harness.results import metrics
from harness.results.records import EpochRecord, Kind, State, TrialRecord
from harness.training import contract, loop
from harness.training.inputs import TrialData
from harness.training.seeds import derive


@dataclass(frozen=True)
class TrialJob:
    """What a worker is asked to train."""

    trial_id: str
    kind: Kind
    strategy: str
    slot: int
    config: TrialConfig
    seed: int  # order, views, initialisation and suffix randomness all derive from it
    split: str  # name of the split it trains on
    attempt: int = 1


OnEpoch = Callable[[EpochRecord], bool]  # True: go on, False: prune


def run_trial(
    job: TrialJob,
    data: TrialData,
    on_epoch: OnEpoch,
    *,
    objective: str,
    weights_name: str,
    device: torch.device,
    checkpoint: Path | None = None,
) -> TrialRecord:
    """Train one configuration and say what happened; a failure is a state of the record, never a score.

    Args:
        on_epoch: told every epoch as it ends; its False ends the trial as pruned.
        objective: the metric whose best epoch on validation is kept.
        weights_name: `bundled`, `imagenet`, `none` or a path; `from_scratch` takes `none` whatever it says.
        checkpoint: where the tensors of the best epoch go (safetensors, what differs from the weights);
            None keeps nothing.
    """
    run = _Run(job, data, on_epoch, objective, weights_name, device, checkpoint)
    try:
        return run.to_record(*run.train())
    except loop.DivergedError as error:
        return run.to_record("diverged", str(error))
    except ContractError as error:
        return run.to_record("failed", f"training contract: {error}")
    except (torch.OutOfMemoryError, MemoryError) as error:
        return run.to_record("out_of_memory", str(error).splitlines()[0] if str(error) else "host memory")


class _Run:
    """The state of one trial while it trains."""

    def __init__(
        self,
        job: TrialJob,
        data: TrialData,
        on_epoch: OnEpoch,
        objective: str,
        weights_name: str,
        device: torch.device,
        checkpoint: Path | None,
    ) -> None:
        self.job, self.data, self.on_epoch = job, data, on_epoch
        self.objective, self.device, self.checkpoint = objective, device, checkpoint
        self.weights_name = weights_of(job.strategy, weights_name)
        self.epochs: list[EpochRecord] = []
        self.best: EpochRecord | None = None
        self.best_tensors: dict[str, torch.Tensor] = {}
        self.warnings: dict[str, None] = {}
        self.trainable = self.total = self.batchnorm_layers = 0
        self.started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self.clock = time.monotonic()
        self.waited = 0.0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def train(self) -> tuple[State, str | None]:
        config, data = self.job.config, self.data
        model = prepare(self.job, data, self.weights_name, self.device)
        optimizer = make_optimizer(model, config)
        self._count(model)
        normalise = loop.Normalise(model.mean, model.std, self.device)
        phase: contract.Phase | None = None
        stages: tuple[str, ...] | None = None
        for epoch in range(1, config.epochs + 1):
            started = time.monotonic()
            if freezing.unfrozen_stages(config, epoch) != stages:
                self._close(phase)
                stages = freezing.unfrozen_stages(config, epoch)
                phase = enter_phase(model, optimizer, config, epoch)
            assert phase is not None  # the first epoch always opens a phase
            train_loss = loop.train_epoch(
                model, optimizer, data, config, epoch=epoch, seed=self.job.seed, normalise=normalise,
                device=self.device, after_first_backward=lambda p=phase, e=epoch: self._note_zero(p, e),  # type: ignore[misc]
            )  # fmt: skip
            probabilities = loop.predict(
                model, data, data.validation, config.batch_size, normalise=normalise, device=self.device
            )
            record = self._epoch(epoch, train_loss, probabilities, optimizer, time.monotonic() - started)
            if record is self.best:
                self.best_tensors = _moved(model, config)
            if not self._ask(record) and epoch < config.epochs:
                self._close(phase)
                return "pruned", f"stopped after epoch {epoch}: below the median of its strategy"
        self._close(phase)
        self._save()
        return "complete", None

    def _count(self, model: TransferModel) -> None:
        names = names_any_epoch(model, self.job.config)
        self.total = sum(p.numel() for p in model.parameters())
        self.trainable = sum(p.numel() for name, p in model.named_parameters() if name in names)
        self.batchnorm_layers = batchnorm.count(model)
        contract.check_head(model, self.data.num_classes, _dry_output(model, self.data, self.job.config, self.device))

    def _note_zero(self, phase: contract.Phase, epoch: int) -> None:
        for name in phase.check_gradients():
            self.warnings[f"{name} had a zero gradient at the first step of epoch {epoch}"] = None

    def _close(self, phase: contract.Phase | None) -> None:
        if phase is not None:
            self.warnings.update(dict.fromkeys(phase.check_end()))

    def _epoch(
        self, epoch: int, train_loss: float, probabilities: NDArray[np.float32],
        optimizer: torch.optim.Optimizer, seconds: float,
    ) -> EpochRecord:  # fmt: skip
        scores = metrics.all_metrics(probabilities, self.data.labels[self.data.validation])
        rates = {group["stage"]: group["lr"] for group in optimizer.param_groups}
        backbone = [rate for stage, rate in rates.items() if stage != "head"]
        record = EpochRecord(
            epoch=epoch, train_loss=train_loss, validation={**scores, "loss": scores["log_loss"]},
            head_lr=rates["head"], backbone_lr=max(backbone) if backbone else None, seconds=seconds,
        )  # fmt: skip
        self.epochs.append(record)
        sign = 1 if metrics.direction(self.objective) == "maximize" else -1
        if self.best is None or sign * scores[self.objective] > sign * self.best.validation[self.objective]:
            self.best = record
        return record

    def _ask(self, record: EpochRecord) -> bool:
        asked = time.monotonic()
        go_on = self.on_epoch(record)
        self.waited += time.monotonic() - asked
        return go_on

    def _save(self) -> None:
        if self.checkpoint is not None:
            save_checkpoint(self.checkpoint, self.best_tensors)

    def to_record(self, state: State, reason: str | None) -> TrialRecord:
        job = self.job
        scored = self.best is not None and state in ("complete", "pruned")
        return TrialRecord(
            trial_id=job.trial_id, kind=job.kind, strategy=job.strategy, slot=job.slot, config=job.config,
            seed=job.seed, state=state, reason=reason, epochs=tuple(self.epochs),
            best_epoch=self.best.epoch if scored and self.best else None,
            score=self.best.validation[self.objective] if scored and self.best else None,
            seconds_alone=time.monotonic() - self.clock - self.waited,
            trainable_parameters=self.trainable, total_parameters=self.total,
            device=device_name(self.device), started_at=self.started_at, attempt=job.attempt,
            device_memory_bytes=torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None,
            batchnorm_layers=self.batchnorm_layers, warnings=tuple(self.warnings),
            checkpoint=self.checkpoint.name if self.checkpoint and state == "complete" else None,
        )  # fmt: skip


def prepare(job: TrialJob, data: TrialData, weights_name: str, device: torch.device) -> TransferModel:
    """The model of a trial before its first step: weights, a new head, statistics re-estimated where asked."""
    config = job.config
    model = build(
        config.backbone, data.num_classes, weights_name,
        image_size=data.images.shape[1], seed=derive(job.seed, "initialisation"),
    ).to(device)  # fmt: skip
    if config.batchnorm == "recalibrated":
        normalise = loop.Normalise(model.mean, model.std, device)
        batches = [
            normalise(data.batch(data.train[i : i + config.batch_size], device))
            for i in range(0, len(data.train), config.batch_size)
        ]
        batchnorm.recalibrate(model, batches)
    return model


def make_optimizer(model: TransferModel, config: TrialConfig) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov momentum, over groups that are fixed for all epochs."""
    groups = param_groups(
        model, head_lr=config.head_lr, backbone_lr=config.backbone_lr, layer_decay=config.layer_decay,
        weight_decay=config.weight_decay, names=names_any_epoch(model, config),
    )  # fmt: skip
    for group in groups:
        group["peak_lr"] = group["lr"]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups)


def enter_phase(
    model: TransferModel, optimizer: torch.optim.Optimizer, config: TrialConfig, epoch: int
) -> contract.Phase:
    """Freeze and unfreeze for the epochs from this one on, and open the contract over them."""
    stages = freezing.unfrozen_stages(config, epoch)
    names = freezing.trainable(model, config, epoch)
    policy: BatchNormPolicy = config.batchnorm
    freezing.apply(model, names)
    batchnorm.apply_policy(model, policy, stages)
    return contract.Phase(model, optimizer, names, contract.movable_buffers(model, policy, stages))


def restore(job: TrialJob, data: TrialData, weights_name: str, device: torch.device, checkpoint: Path) -> TransferModel:
    """The model of a finished trial at its best epoch, in eval mode.

    Raises:
        ResourceError: the checkpoint is gone or does not belong to this configuration.
    """
    weights_name = weights_of(job.strategy, weights_name)
    model = build(
        job.config.backbone, data.num_classes, weights_name,
        image_size=data.images.shape[1], seed=derive(job.seed, "initialisation"),
    )  # fmt: skip
    try:
        tensors = load_file(checkpoint)
    except (OSError, ValueError) as error:
        raise ResourceError(
            f"the checkpoint {checkpoint.name} cannot be read ({error}); train the trial again"
        ) from None
    unexpected = model.load_state_dict(tensors, strict=False).unexpected_keys
    if unexpected:
        raise ResourceError(f"{checkpoint.name} belongs to another configuration: it holds {unexpected[0]}")
    return model.to(device).eval()


def save_checkpoint(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write tensors under a temporary name and rename: a reader sees the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
    temporary.replace(path)


def weights_of(strategy: str, weights_name: str) -> str:
    """The weights a strategy starts from."""
    return "none" if strategy == "from_scratch" else weights_name


def device_name(device: torch.device) -> str:
    """`cpu`, or the device with its product name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _moved(model: TransferModel, config: TrialConfig) -> dict[str, torch.Tensor]:
    """Copies, on the CPU, of every tensor that may differ from the weights: what trains in any epoch, and all
    buffers where the policy touches them."""
    names = names_any_epoch(model, config)
    kept = {name: p.detach().cpu().clone() for name, p in model.named_parameters() if name in names}
    if config.batchnorm not in ("frozen", "fixed_stats"):
        kept |= {name: b.detach().cpu().clone() for name, b in model.named_buffers()}
    return kept


@torch.inference_mode()
def _dry_output(model: TransferModel, data: TrialData, config: TrialConfig, device: torch.device) -> torch.Tensor:
    """The outputs for one image, in eval mode."""
    model.eval()
    output: torch.Tensor = model(data.batch(data.train[:1], device))
    model.train()
    return output
