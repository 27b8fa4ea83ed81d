"""run_trial: one configuration, trained once, from a job to a TrialRecord. Needs neither Optuna nor MLflow."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from harness.config.trial import BatchNormPolicy, TrialConfig
from harness.errors import ContractError, DivergedError, ResourceError
from harness.model import batchnorm, freezing
from harness.model.freezing import names_any_epoch
from harness.model.transfer import TransferModel
from harness.results import metrics
from harness.results.records import EpochRecord, Kind, State, TrialRecord
from harness.training import checkpoint as checkpoint_files
from harness.training import contract, loop
from harness.training.average import Average
from harness.training.clock import Clock
from harness.training.feed import Normalise
from harness.training.inputs import TrialData
from harness.training.loss import Loss
from harness.training.optimizers import make_optimizer
from harness.training.precision import EXACT
from harness.training.sharing import Sharing
from harness.training.source import Source
from harness.training.starting import Starting, build_for


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
RESUME_EVERY = 300.0  # seconds between two notes of where a trial stands; a shorter trial starts again


def run_trial(
    job: TrialJob,
    data: TrialData,
    on_epoch: OnEpoch,
    *,
    objective: str,
    weights_name: str,
    device: torch.device,
    checkpoint: Path | None = None,
    resume: Path | None = None,
    resume_every: float = RESUME_EVERY,
    sharing: Sharing | None = None,
) -> TrialRecord:
    """Train one configuration and say what happened; a failure is a state of the record, never a score.

    Args:
        on_epoch: told every epoch as it ends; its False ends the trial as pruned. A resumed trial tells its earlier
            epochs again, and goes on whatever is answered: the answer was given before.
        objective: the metric whose best epoch on validation is kept.
        weights_name: `bundled`, `imagenet`, `none` or a path; `from_scratch` takes `none` whatever it says.
        checkpoint: where the tensors of the best epoch go (safetensors, what differs from the weights);
            None keeps nothing.
        resume: where the trial notes how far it is, and goes on from if it was killed; removed when it ends.
        resume_every: seconds between two such notes; each is made when an epoch ends.
        sharing: what this process shares between trials; no bit of a record depends on it but times and
            `cache_reason`. None shares nothing.
    """
    sharing = sharing or Sharing()
    run = _Run(job, data, on_epoch, objective, weights_name, device, checkpoint, resume, resume_every, sharing)
    try:
        record = run.to_record(*run.train())
    except DivergedError as error:
        record = run.to_record("diverged", str(error))
    except ContractError as error:
        record = run.to_record("failed", f"training contract: {error}")
        sharing.forget()
    except (torch.OutOfMemoryError, MemoryError) as error:
        record = run.to_record("out_of_memory", str(error).splitlines()[0] if str(error) else "host memory")
    if resume is not None:
        resume.unlink(missing_ok=True)
    return record


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
        resume: Path | None,
        resume_every: float,
        sharing: Sharing,
    ) -> None:
        self.sharing, self.clock = sharing, Clock()
        self.choice = EXACT
        self.source: Source | None = None
        self.job, self.data, self.on_epoch = job, data, on_epoch
        self.objective, self.device, self.checkpoint = objective, device, checkpoint
        self.resume, self.resume_every = resume, resume_every
        self.weights_name = weights_of(job.strategy, weights_name)
        self.epochs: list[EpochRecord] = []
        self.best: EpochRecord | None = None
        self.best_tensors: dict[str, torch.Tensor] = {}
        self.warnings: dict[str, None] = {}
        self.trainable = self.total = self.batchnorm_layers = 0
        self.started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self.noted_at = time.monotonic()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def train(self) -> tuple[State, str | None]:
        job, config, data = self.job, self.job.config, self.data
        model, starting = self._start()
        names = names_any_epoch(model, config)
        optimizer = make_optimizer(model, config, names, fused=self.sharing.chooser.precision == "auto")
        moving = checkpoint_files.moving(model, config, names)
        average = Average(moving, config.ema) if config.ema else None
        normalise = Normalise(model.mean, model.std, self.device)
        loss = Loss(config, data.labels[data.train], data.num_classes, self.device)
        course = loop.Course(data, config, job.seed, loss, self.device)
        self.source = source = Source(
            self.sharing, course, job.split, starting, normalise, self.choice, self.device, self.clock
        )
        self._count(model, names, normalise)
        phase: contract.Phase | None = None
        stages: tuple[str, ...] | None = None
        for epoch in range(self._go_on(model, optimizer, average) + 1, config.epochs + 1):
            before = self.clock.used()
            if freezing.unfrozen_stages(config, epoch) != stages:
                self._close(phase)
                stages = freezing.unfrozen_stages(config, epoch)
                phase = self._enter(model, optimizer, starting, epoch)
                source.enter(epoch)
            assert phase is not None  # the first epoch always opens a phase
            feed = source.begin(epoch)
            train_loss = loop.train_epoch(
                model, optimizer, course, feed, epoch,
                after_first_backward=partial(self._check_gradients, phase, epoch),
                after_step=average.update if average else lambda: None,
            )  # fmt: skip
            with average.swapped_in() if average else nullcontext():
                probabilities = loop.predict(model, partial(feed.evaluate, model), data.validation, config.batch_size)
                record = self._epoch(epoch, train_loss, probabilities, optimizer, self.clock.used() - before)
                if record is self.best:
                    self.best_tensors = checkpoint_files.copied(moving)
            if not self._ask(record) and epoch < config.epochs:
                self._close(phase)
                return "pruned", f"stopped after epoch {epoch}: below the median of its strategy"
            if self._patience_ended(epoch):
                break
            self._note(moving, optimizer, average)
        self._close(phase)
        if self.checkpoint is not None:
            checkpoint_files.save_best(self.checkpoint, self.best_tensors, data.classes)
        return "complete", None

    def _start(self) -> tuple[TransferModel, Starting]:
        """The model before its first step."""
        model, starting, at_hand = self.sharing.models.take(
            self.job.config, self.job.seed, self.data, self.weights_name, self.device
        )
        self.clock.set_up = starting.seconds if at_hand else 0.0
        with self.clock.sharing():
            side = self.data.images.shape[1]
            self.choice = self.sharing.chooser.choose(starting.model, side, self.job.config.batch_size, self.device)
        if self.choice.forward.channels_last or self.choice.training.channels_last:
            model.to(memory_format=torch.channels_last)
        return model, starting

    def _count(self, model: TransferModel, names: frozenset[str], normalise: Normalise) -> None:
        self.total = sum(p.numel() for p in model.parameters())
        self.trainable = sum(p.numel() for name, p in model.named_parameters() if name in names)
        self.batchnorm_layers = batchnorm.count(model)
        with self.clock.checking():
            contract.watch_head(model, self.data.num_classes)
            contract.check_normalisation(normalise, self.weights_name, self.job.config.backbone, self.device)

    def _enter(
        self, model: TransferModel, optimizer: torch.optim.Optimizer, starting: Starting, epoch: int
    ) -> contract.Phase:
        names, movable = enter_phase(model, self.job.config, epoch)
        with self.clock.checking():
            return contract.Phase(model, optimizer, names, movable, starting.known)

    def _check_gradients(self, phase: contract.Phase, epoch: int) -> None:
        with self.clock.checking():
            for name in phase.check_gradients():
                self.warnings[f"{name} had a zero gradient at the first step of epoch {epoch}"] = None

    def _close(self, phase: contract.Phase | None) -> None:
        if phase is not None:
            with self.clock.checking():
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
        self._take(record)
        return record

    def _take(self, record: EpochRecord) -> None:
        """Append an epoch, and keep it as the best one if it is better than all before."""
        self.epochs.append(record)
        sign = 1 if metrics.direction(self.objective) == "maximize" else -1
        score = record.validation[self.objective]
        if self.best is None or sign * score > sign * self.best.validation[self.objective]:
            self.best = record

    def _ask(self, record: EpochRecord) -> bool:
        with self.clock.waiting():
            return self.on_epoch(record)

    def _patience_ended(self, epoch: int) -> bool:
        """Whether so many epochs brought nothing better; counted from the first in which all of it trains."""
        config = self.job.config
        if config.early_stopping == 0 or self.best is None:
            return False
        since = max(self.best.epoch, freezing.last_phase(config) - 1)
        return epoch - since >= config.early_stopping

    def _identity(self) -> str:
        """Of everything that the next epoch depends on."""
        job, data = self.job, self.data
        rows = [hashlib.sha256(part.tobytes()).hexdigest() for part in (data.train, data.validation, data.keys)]
        return checkpoint_files.identity(
            job.trial_id,
            job.config.key(),
            job.seed,
            job.split,
            self.weights_name,
            self.objective,
            self.device.type,
            *rows,
        )

    def _note(self, moving: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer, average: Average | None) -> None:
        """Note where the trial stands, if the last note is long enough ago."""
        if self.resume is None or time.monotonic() - self.noted_at < self.resume_every:
            return
        checkpoint_files.Standing(
            identity=self._identity(), epochs=[asdict(record) for record in self.epochs],
            best_tensors=self.best_tensors, warnings=list(self.warnings), seconds=self.clock.used(),
            tensors=checkpoint_files.copied(moving),
            optimizer=optimizer.state_dict(), average=average.state_dict() if average else None,
        ).save(self.resume)  # fmt: skip
        self.noted_at = time.monotonic()

    def _go_on(self, model: TransferModel, optimizer: torch.optim.Optimizer, average: Average | None) -> int:
        """Take up the trial where a note left it; the number of epochs that are done."""
        standing = checkpoint_files.Standing.load(self.resume, self._identity()) if self.resume else None
        if standing is None:
            return 0
        model.load_state_dict(standing.tensors, strict=False)
        optimizer.load_state_dict(standing.optimizer)
        if average is not None and standing.average is not None:
            average.load_state_dict(standing.average)
        self.best_tensors, self.clock.earlier = standing.best_tensors, standing.seconds
        self.warnings = dict.fromkeys(standing.warnings)
        for values in standing.epochs:
            self._take(EpochRecord.from_json(values))
            self._ask(self.epochs[-1])
        return len(self.epochs)

    def to_record(self, state: State, reason: str | None) -> TrialRecord:
        job = self.job
        scored = self.best is not None and state in ("complete", "pruned")
        reasons = "; ".join(self.source.reasons) if self.source else ""
        return TrialRecord(
            trial_id=job.trial_id, kind=job.kind, strategy=job.strategy, slot=job.slot, config=job.config,
            seed=job.seed, state=state, reason=reason, epochs=tuple(self.epochs),
            best_epoch=self.best.epoch if scored and self.best else None,
            score=self.best.validation[self.objective] if scored and self.best else None,
            seconds_alone=self.clock.alone(), seconds_spent=self.clock.spent(),
            shared_seconds=self.clock.shared, cache_reason=reasons or None,
            precision=str(self.choice), contract_seconds=self.clock.checked,
            trainable_parameters=self.trainable, total_parameters=self.total,
            device=device_name(self.device), started_at=self.started_at, attempt=job.attempt,
            device_memory_bytes=torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None,
            batchnorm_layers=self.batchnorm_layers, warnings=tuple(self.warnings),
            checkpoint=self.checkpoint.name if self.checkpoint and state == "complete" else None,
        )  # fmt: skip


def enter_phase(model: TransferModel, config: TrialConfig, epoch: int) -> tuple[frozenset[str], frozenset[str]]:
    """Freeze and unfreeze for the epochs from this one on.

    Returns:
        Names of the parameters that train now, and of the buffers that may move now.
    """
    stages = freezing.unfrozen_stages(config, epoch)
    names = freezing.trainable(model, config, epoch)
    policy: BatchNormPolicy = config.batchnorm
    freezing.apply(model, names)
    batchnorm.apply_policy(model, policy, stages)
    return names, contract.movable_buffers(model, policy, stages)


def restore(job: TrialJob, data: TrialData, weights_name: str, device: torch.device, checkpoint: Path) -> TransferModel:
    """The model of a finished trial at its best epoch, in eval mode.

    Raises:
        ResourceError: the checkpoint is gone, or belongs to another configuration.
        ContractError: it was trained on other classes, or in another order.
    """
    model = build_for(job.config, job.seed, data, weights_of(job.strategy, weights_name))
    tensors, classes = checkpoint_files.load_best(checkpoint)
    contract.check_classes(classes, data.classes)
    unexpected = model.load_state_dict(tensors, strict=False).unexpected_keys
    if unexpected:
        raise ResourceError(f"{checkpoint.name} belongs to another configuration: it holds {unexpected[0]}")
    return model.to(device).eval()


def weights_of(strategy: str, weights_name: str) -> str:
    """The weights a strategy starts from."""
    return "none" if strategy == "from_scratch" else weights_name


def device_name(device: torch.device) -> str:
    """`cpu`, or the device with its product name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
