"""run_trial: trains one configuration, from a TrialJob to a TrialRecord. It needs neither Optuna nor MLflow."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from harness.config import unfreezing
from harness.config.batchnorm_policy import BatchNormPolicy
from harness.config.initial_weights import Weights
from harness.config.trial import TrialConfig
from harness.errors import ContractError, DivergedError, ResourceError
from harness.model import batchnorm, freezing
from harness.model.freezing import names_any_epoch
from harness.model.transfer import TransferModel
from harness.results.records import EpochRecord, State, TrialJob, TrialRecord
from harness.training import checkpoint as checkpoint_files
from harness.training import contract, logistic_head, loop, out_of_memory
from harness.training.ema import Average
from harness.training.frozen_features.initial_models import InitialModel, build_for
from harness.training.frozen_features.input_pipeline import Normalise
from harness.training.frozen_features.worker_cache import WorkerCache
from harness.training.loss import Loss
from harness.training.optimizers import make_optimizer
from harness.training.out_of_memory import NO_FALLBACK, MemoryFallback, gradient_differences
from harness.training.pipeline_choice import PipelineChoice
from harness.training.record_builder import RecordBuilder, epoch_record
from harness.training.resume import ResumeFile, TrainingState, identity_of
from harness.training.trial_data import TrialData

OnEpoch = Callable[[EpochRecord], bool]  # True: continue, False: prune
RESUME_EVERY = 300.0  # seconds between two saves of the resume file; a shorter trial starts again if it is killed


def run_trial(
    job: TrialJob,
    data: TrialData,
    on_epoch: OnEpoch,
    *,
    objective: str,
    weights_name: str | Weights,
    device: torch.device,
    checkpoint: Path | None = None,
    resume: Path | None = None,
    resume_every: float = RESUME_EVERY,
    worker_cache: WorkerCache | None = None,
    fallback: MemoryFallback = NO_FALLBACK,
) -> TrialRecord:
    """Train one configuration and return its record. A failure is a state of the record, never a score.

    If memory runs out, the state is `out_of_memory`. This function does not try again: see
    `harness.study.executors.run_task` and `harness.training.out_of_memory`.

    Args:
        on_epoch: called with every epoch's record when the epoch ends; if it returns False, the trial ends as pruned.
            A resumed trial calls it again for its earlier epochs and ignores the results, because their decisions
            were made before.
        objective: the metric that decides which epoch is the best on the validation images.
        weights_name: as in a study file. The strategy `from_scratch` always starts from random weights.
        checkpoint: file for the tensors of the best epoch that differ from the starting weights (safetensors); None
            writes no file.
        resume: file from which the trial continues if it was killed. It is removed when the trial ends, unless memory
            ran out. None writes no file.
        resume_every: least number of seconds between two saves of that file; a save is made at the end of an epoch.
        worker_cache: initial models and activations that trials of this process share. It changes nothing in a record
            except times and `cache_reason`. None shares nothing.
        fallback: the fallbacks that earlier attempts at this trial led to. If it has a `micro_batch`, each training
            step divides its batch into parts of that size.
    """
    worker_cache = worker_cache or WorkerCache()
    weights = weights_of(job.strategy, weights_name)
    builder = RecordBuilder(job, objective, device, fallback)
    identity = partial(identity_of, job, data, weights, objective, device, fallback.micro_batch)
    resume_file = ResumeFile(resume, resume_every, identity)
    run = _Run(
        job, data, on_epoch, weights, device, checkpoint, resume_file, worker_cache, fallback.micro_batch, builder
    )
    state: State
    reason: str | None
    try:
        state, reason = run.train()
    except DivergedError as error:
        state, reason = "diverged", str(error)
    except ContractError as error:
        state, reason = "failed", f"training contract: {error}"
        worker_cache.clear()
    except Exception as error:
        if not out_of_memory.ran_out(error):
            raise
        state, reason = "out_of_memory", out_of_memory.reason(error)
    if resume is not None and state != "out_of_memory":
        resume.unlink(missing_ok=True)
    return builder.to_record(state, reason, checkpoint)


@dataclass
class _Run:
    """The state of one trial while it trains."""

    job: TrialJob
    data: TrialData
    on_epoch: OnEpoch
    weights: Weights
    device: torch.device
    checkpoint: Path | None
    resume_file: ResumeFile
    worker_cache: WorkerCache
    micro_batch: int | None
    builder: RecordBuilder

    def train(self) -> tuple[State, str | None]:
        """Train all epochs; return the final state, and the reason if it is not `complete`."""
        job, config, data, clock = self.job, self.job.config, self.data, self.builder.clock
        model, initial = self._start()
        names = names_any_epoch(model, config)
        optimizer = make_optimizer(model, config, names, fused=self.worker_cache.chooser.precision == "auto")
        tensors = checkpoint_files.changing_tensors(model, config, names)
        average = Average(tensors, config.ema) if config.ema else None
        training_state = TrainingState(model, optimizer, average, tensors)
        normalise = Normalise(model.mean, model.std, self.device)
        loss = Loss(config, data.labels[data.train], data.num_classes, self.device)
        setup = loop.TrainingSetup(data, config, job.seed, loss, self.device, self.micro_batch)
        pipelines = PipelineChoice(
            self.worker_cache,
            setup,
            job.split,
            initial,
            normalise,
            self.builder.choice,
            self.device,
            clock,
            self.builder.cache_reasons,
        )
        self._check_start(model, names, normalise)
        if config.head_solver == "logistic":
            return self._solve_head(model, optimizer, setup, pipelines, initial, tensors)
        phase: contract.Phase | None = None
        stages: tuple[str, ...] | None = None
        for epoch in range(self._go_on(training_state) + 1, config.epochs + 1):
            before = clock.used()
            if unfreezing.unfrozen_stages(config, epoch) != stages:
                self._close(phase)
                stages = unfreezing.unfrozen_stages(config, epoch)
                phase = self._enter(model, optimizer, initial, epoch)
                pipelines.enter(epoch)
            assert phase is not None  # the first epoch always opens a phase
            pipeline = pipelines.begin(epoch)
            train_loss = loop.train_epoch(
                model,
                optimizer,
                setup,
                pipeline,
                epoch,
                after_first_backward=partial(self._check_gradients, phase, epoch),
                after_step=average.update if average else lambda: None,
            )
            with average.swapped_in() if average else nullcontext():
                probabilities = loop.predict(model, partial(pipeline.evaluate, model), data.validation, setup.pass_size)
                labels = data.labels[data.validation]
                record = epoch_record(epoch, train_loss, probabilities, labels, optimizer, clock.used() - before)
                if self.builder.add(record):
                    training_state.best = checkpoint_files.copy_to_cpu(tensors)
            if not self._ask(record) and epoch < config.epochs:
                self._close(phase)
                return "pruned", f"stopped after epoch {epoch}: below the median of its strategy"
            if self.builder.patience_ended(epoch):
                break
            self.resume_file.save_if_due(training_state, self.builder)
        self._close(phase)
        if self.checkpoint is not None:
            checkpoint_files.save_best(self.checkpoint, training_state.best, data.classes)
        return "complete", None

    def _solve_head(
        self,
        model: TransferModel,
        optimizer: torch.optim.Optimizer,
        setup: loop.TrainingSetup,
        pipelines: PipelineChoice,
        initial: InitialModel,
        tensors: dict[str, torch.Tensor],
    ) -> tuple[State, str | None]:
        """Train a head on frozen features to its optimum; see `harness.training.logistic_head`.

        The trial's only record of an epoch has the number of its last one, so that pruning compares it with nothing
        earlier.
        """
        config, data, before = self.job.config, self.data, self.builder.clock.used()
        phase = self._enter(model, optimizer, initial, 1)
        pipelines.enter(1)
        features, labels = logistic_head.train_features(model, setup, pipelines.begin)
        pipeline = pipelines.begin(1)
        validation = logistic_head.plain_features(model, pipeline, data.validation, setup.pass_size)
        truth = data.labels[data.validation]
        solved = logistic_head.solve(
            features, labels, validation, truth, config, data.num_classes, self.builder.objective
        )
        logistic_head.write(model, solved)
        phase.note_solved()
        self.builder.l2 = solved.l2
        for group in optimizer.param_groups:
            group["lr"] = 0.0  # no step was made
        probabilities = loop.predict(model, partial(pipeline.evaluate, model), data.validation, setup.pass_size)
        seconds = self.builder.clock.used() - before
        record = epoch_record(config.epochs, solved.train_loss, probabilities, truth, optimizer, seconds)
        self.builder.add(record)
        self._close(phase)
        self._ask(record)
        if self.checkpoint is not None:
            checkpoint_files.save_best(self.checkpoint, checkpoint_files.copy_to_cpu(tensors), data.classes)
        return "complete", None

    def _start(self) -> tuple[TransferModel, InitialModel]:
        """Return the model before its first step, and what it was made from; choose the arithmetic."""
        config, clock = self.job.config, self.builder.clock
        model, initial, was_cached = self.worker_cache.models.checkout(
            config, self.job.seed, self.data, self.weights, self.device, self.micro_batch
        )
        clock.set_up = initial.seconds if was_cached else 0.0
        with clock.sharing():
            side, pass_size = self.data.images.shape[1], self.micro_batch or config.batch_size
            choice = self.builder.choice = self.worker_cache.chooser.choose(initial.model, side, pass_size, self.device)
        if choice.forward.channels_last or choice.training.channels_last:
            model.to(memory_format=torch.channels_last)
        return model, initial

    def _check_start(self, model: TransferModel, names: frozenset[str], normalise: Normalise) -> None:
        self.builder.count(model, names)
        with self.builder.clock.checking():
            contract.watch_head(model, self.data.num_classes)
            contract.check_normalisation(
                normalise, self.weights, self.job.config.backbone, self.device, self.data.channels
            )

    def _go_on(self, training_state: TrainingState) -> int:
        """Continue from the resume file, if there is one; return the number of epochs that are done."""
        done = self.resume_file.restore(training_state, self.builder)
        for record in done:
            self.builder.add(record)
            self._ask(record)
        return len(done)

    def _enter(
        self, model: TransferModel, optimizer: torch.optim.Optimizer, initial: InitialModel, epoch: int
    ) -> contract.Phase:
        names, movable = enter_phase(model, self.job.config, epoch)
        if self.micro_batch is not None:
            for why in gradient_differences(model.train()):
                self.builder.warn(f"in micro-batches {why}: the results are not those of whole batches")
        with self.builder.clock.checking():
            return contract.Phase(model, optimizer, names, movable, initial.reference)

    def _check_gradients(self, phase: contract.Phase, epoch: int) -> None:
        with self.builder.clock.checking():
            for name in phase.check_gradients():
                self.builder.warn(f"{name} had a zero gradient at the first step of epoch {epoch}")

    def _close(self, phase: contract.Phase | None) -> None:
        if phase is not None:
            with self.builder.clock.checking():
                for warning in phase.check_end():
                    self.builder.warn(warning)

    def _ask(self, record: EpochRecord) -> bool:
        with self.builder.clock.waiting():
            return self.on_epoch(record)


def enter_phase(model: TransferModel, config: TrialConfig, epoch: int) -> tuple[frozenset[str], frozenset[str]]:
    """Freeze and unfreeze parameters and BatchNorm statistics as the configuration says for this epoch.

    Returns:
        Names of the parameters that train now, and of the buffers that may change now.
    """
    stages = unfreezing.unfrozen_stages(config, epoch)
    names = freezing.trainable(model, config, epoch)
    policy: BatchNormPolicy = config.batchnorm
    freezing.apply(model, names)
    batchnorm.apply_policy(model, policy, stages)
    return names, contract.movable_buffers(model, policy, stages)


def restore(
    job: TrialJob, data: TrialData, weights_name: str | Weights, device: torch.device, checkpoint: Path
) -> TransferModel:
    """Return the model of a finished trial at its best epoch, in eval mode.

    Raises:
        ResourceError: the checkpoint is missing or damaged, or belongs to another configuration.
        ContractError: the model was trained on other classes, or with the classes in another order.
    """
    model = build_for(job.config, job.seed, data, weights_of(job.strategy, weights_name))
    tensors, classes = checkpoint_files.load_best(checkpoint)
    contract.check_classes(classes, data.classes)
    unexpected = model.load_state_dict(tensors, strict=False).unexpected_keys
    if unexpected:
        raise ResourceError(f"{checkpoint.name} belongs to another configuration: it holds {unexpected[0]}")
    return model.to(device).eval()


def weights_of(strategy: str, weights_name: str | Weights) -> Weights:
    """Return the weights that a strategy starts from."""
    return Weights("none") if strategy == "from_scratch" else Weights.of(weights_name)
