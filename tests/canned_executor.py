"""An executor that trains nothing: what it answers follows from the job alone, and a `Script` says what goes wrong.

For tests of all that is done around trials. The `canned` fixture enters it in the table of executors, under that name.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import torch

from harness.results.metrics import all_metrics, sign_of
from harness.results.records import EpochRecord, State, TrialJob, TrialRecord
from harness.study.executors.base import (
    Died,
    EpochMessage,
    Handler,
    NeighboursFound,
    NeighboursTask,
    Scored,
    ScoreTask,
    Task,
    Trained,
    WorkerContext,
)
from harness.training.checkpoint import save_best
from harness.training.neighbours import Neighbours

ANSWERS = 30  # made-up validation images of an epoch


@dataclass
class Script:
    """What the executor does; a test changes it before the study runs."""

    places: int = 1
    seconds: Callable[[TrialJob], float] = lambda job: 0.1  # what a trial says it took
    ends: Callable[[TrialJob], State] = lambda job: "complete"
    deaths: Counter[str] = field(default_factory=Counter)  # how many more workers die under a trial, by its id
    checkpoints: bool = False  # leave one that can be loaded: of the model as it was before training


class CannedExecutor:
    """Answers one task a poll, in the order they came."""

    def __init__(self, context: WorkerContext, script: Script) -> None:
        self._context, self._script = context, script
        self._tasks: list[Task] = []

    @property
    def places(self) -> int:
        return self._script.places

    def submit(self, task: Task) -> None:
        self._tasks.append(task)

    def poll(self, handle: Handler, timeout: float) -> None:
        if not self._tasks:
            return
        task = self._tasks.pop(0)
        if isinstance(task, ScoreTask):
            random = _random(task.job, str(task.shift))
            even = np.ones(len(self._context.classes))
            handle(Scored(task.task_id, random.dirichlet(even, len(task.rows)).astype(np.float32)))
        elif isinstance(task, NeighboursTask):
            handle(NeighboursFound(task.task_id, tuple(self._neighbours(task, split) for split in task.splits)))
        else:
            self._train(task.job, handle)

    def close(self) -> None:
        self._tasks.clear()

    def _neighbours(self, task: NeighboursTask, split: str) -> Neighbours:
        random = np.random.default_rng(zlib.crc32(f"{task.config.backbone} {split}".encode()))
        even = np.ones(len(self._context.classes))
        return Neighbours(5, 0.5, random.dirichlet(even, len(task.rows)).astype(np.float32))

    def _train(self, job: TrialJob, handle: Handler) -> None:
        state, told = self._script.ends(job), []
        for number in range(1, job.config.epochs + 1):
            told.append(self._epoch(job, number))
            if not handle(EpochMessage(job.trial_id, told[-1])):
                state = "pruned"
                break
            if self._script.deaths[job.trial_id] > 0:
                self._script.deaths[job.trial_id] -= 1
                handle(Died(job.trial_id, "the worker died (signal SIGKILL)"))
                return
        handle(Trained(job.trial_id, self._record(job, state, told)))

    def _epoch(self, job: TrialJob, number: int) -> EpochRecord:
        """The share of right answers rises with the epochs, to a height that the configuration decides."""
        random, config, classes = _random(job, str(number)), job.config, len(self._context.classes)
        height = 0.9 - 0.1 * abs(np.log10(config.head_lr) + 2) - 0.05 * abs(config.unfreeze_depth - 2)
        labels = np.arange(ANSWERS) % classes
        probabilities = random.dirichlet(np.ones(classes), ANSWERS)
        known = random.random(ANSWERS) < height * (1 - 0.6 * np.exp(-number / 2))
        probabilities[known] = 0.2 * probabilities[known] + 0.8 * np.eye(classes)[labels[known]]
        scores = all_metrics(probabilities.astype(np.float32), labels)
        validation = {**scores, "loss": scores["log_loss"]}
        return EpochRecord(number, scores["log_loss"], validation, config.head_lr, config.backbone_lr, 0.01)

    def _record(self, job: TrialJob, state: State, epochs: list[EpochRecord]) -> TrialRecord:
        objective, seconds = self._context.objective, self._script.seconds(job)
        best = max(epochs, key=lambda epoch: sign_of(objective) * epoch.validation[objective])
        scored = state in ("complete", "pruned")
        path = self._context.checkpoint(job)
        if self._script.checkpoints and state == "complete":
            save_best(path, dict[str, torch.Tensor](), self._context.classes)
        return TrialRecord(
            job=job,
            state=state,
            reason=None if state == "complete" else f"{state}, as the script says",
            epochs=tuple(epochs),
            best_epoch=best.epoch if scored else None,
            score=best.validation[objective] if scored else None,
            seconds_alone=seconds,
            seconds_spent=seconds,
            trainable_parameters=1 + job.config.unfreeze_depth,
            total_parameters=10,
            device="made up",
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
            checkpoint=path.name if self._script.checkpoints and state == "complete" else None,
        )


_script = Script()  # of the test that runs


def make(context: WorkerContext, devices: Sequence[str]) -> CannedExecutor:
    """As the table of executors asks for it."""
    return CannedExecutor(context, _script)


def _random(job: TrialJob, what: str) -> np.random.Generator:
    """The same numbers for the same configuration, seed and split."""
    return np.random.default_rng(zlib.crc32(f"{job.config.key()} {job.seed} {job.split} {what}".encode()))
