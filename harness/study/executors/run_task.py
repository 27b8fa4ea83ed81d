"""Run one task in this process, with the fallbacks of `harness.training.out_of_memory` if memory runs out.

All executors and the doctor use these functions, each in its own process.
"""

from __future__ import annotations

import dataclasses
import traceback
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from harness.errors import ContractError, DiskFullError, ResourceError
from harness.results.records import EpochRecord, TrialJob, TrialRecord
from harness.study.executors.base import (
    Died,
    DiskFull,
    FreshWorker,
    NeighboursFound,
    NeighboursTask,
    Result,
    Scored,
    ScoreTask,
    Task,
    Trained,
    TrainTask,
    WorkerContext,
)
from harness.training import neighbours, out_of_memory, precision
from harness.training.frozen_features.initial_models import build_for
from harness.training.frozen_features.worker_cache import WorkerCache
from harness.training.head_inputs import head_inputs
from harness.training.loop import predict_images
from harness.training.trial import OnEpoch, restore, run_trial
from harness.training.trial_data import TrialData

SAME_SCORE = 1e-6  # largest allowed difference between the score of a model trained again and its first score


def run_task_safely(
    task: Task,
    context: WorkerContext,
    device: torch.device,
    on_epoch: OnEpoch,
    worker_cache: WorkerCache,
    *,
    replaceable: bool = False,
) -> Result | Died | DiskFull | FreshWorker:
    """Run one task as `run_task` does, and return an error as a message instead of raising it."""
    try:
        return run_task(task, context, device, on_epoch, worker_cache, replaceable=replaceable)
    except DiskFullError as error:
        return DiskFull(task.task_id, str(error))
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return Died(task.task_id, f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})")


def run_task(
    task: Task,
    context: WorkerContext,
    device: torch.device,
    on_epoch: OnEpoch,
    worker_cache: WorkerCache,
    *,
    replaceable: bool = False,
) -> Result | Died | FreshWorker:
    """Run one task in this process, with the cache that earlier tasks of this process filled.

    Args:
        on_epoch: called once for each epoch of a trial, also if the trial has to start again. Its answer counts for
            every try, although an epoch in micro-batches may give slightly other numbers than those it was called with.
        replaceable: whether the executor can start a fresh process; otherwise FreshWorker is never returned.
    """
    fallback = task.fallback
    while True:
        answers = list(fallback.answers)
        this_try = dataclasses.replace(task, fallback=fallback)
        result = _run_once(this_try, context, device, _ask_once(on_epoch, answers), worker_cache)
        if not isinstance(result, _OutOfMemory):
            return result
        next_step = fallback.next_step(task.config.batch_size, replaceable=replaceable)
        if next_step is None:
            return _give_up(task, result, context)
        spent = result.record.seconds_spent if result.record is not None else None
        fallback = dataclasses.replace(next_step, answers=tuple(answers), seconds=spent or fallback.seconds)
        context.release()
        out_of_memory.release(worker_cache, device)
        if fallback.fresh_worker and not task.fallback.fresh_worker:
            return FreshWorker(dataclasses.replace(task, fallback=fallback))


@dataclass(frozen=True)
class _OutOfMemory:
    """A try that ran out of memory."""

    reason: str
    record: TrialRecord | None  # the trial's record; None if the training had not started


def _run_once(
    task: Task, context: WorkerContext, device: torch.device, on_epoch: OnEpoch, worker_cache: WorkerCache
) -> Result | _OutOfMemory:
    """Try the task once from the beginning. When this returns, nothing refers to the memory that the try used."""
    try:
        match task:
            case TrainTask():
                return _train(task, context, device, on_epoch, worker_cache)
            case ScoreTask():
                return _score(task, context, device, worker_cache)
            case NeighboursTask():
                return _neighbours(task, context, device)
    except Exception as error:
        if not out_of_memory.ran_out(error):
            raise
        return _OutOfMemory(out_of_memory.reason(error), None)


def _data(task: Task, split: str, context: WorkerContext, device: torch.device) -> TrialData:
    """Return the task's images. After the device ran out of memory, they are not kept on it for the rest of it."""
    kept_on = None if task.fallback.released else device
    return context.data(task.config.backbone, split, kept_on, task.config.weights)


def _train(
    task: TrainTask, context: WorkerContext, device: torch.device, on_epoch: OnEpoch, worker_cache: WorkerCache
) -> Trained | _OutOfMemory:
    job = task.job
    record = run_trial(
        job,
        _data(task, job.split, context, device),
        on_epoch,
        objective=context.objective,
        weights_name=context.weights_of(job.config),
        device=device,
        checkpoint=context.checkpoint(job),
        resume=context.resume(job),
        worker_cache=worker_cache,
        fallback=task.fallback,
    )
    if record.state == "out_of_memory":
        return _OutOfMemory(record.reason or "", record)
    return Trained(task.task_id, record)


def _score(task: ScoreTask, context: WorkerContext, device: torch.device, worker_cache: WorkerCache) -> Scored:
    job, fallback, trained_again = task.job, task.fallback, False
    data = _data(task, job.split, context, device)
    try:
        model = restore(job, data, context.weights_of(job.config), device, context.checkpoint(job))
    except (ResourceError, ContractError):
        if task.score is None:
            raise
        train_again(job, context, device, task.score, worker_cache)
        model, trained_again = restore(job, data, context.weights_of(job.config), device, context.checkpoint(job)), True
    batch_size = fallback.micro_batch or job.config.batch_size
    probabilities = predict_images(model, data, task.rows, batch_size, device, task.shift)
    return Scored(task.task_id, probabilities, fallback.describe(job.config.batch_size), trained_again)


def _neighbours(task: NeighboursTask, context: WorkerContext, device: torch.device) -> NeighboursFound:
    """Compute each image's features once, and answer the task's rows with each split."""
    config, size = task.config, task.fallback.micro_batch or task.config.batch_size
    parts = [_data(task, split, context, device) for split in task.splits]
    model = build_for(config, 0, parts[0], context.weights_of(config)).to(device)

    def features(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return head_inputs(model, partial(predict_images, model, parts[0], rows, size, device))[: len(rows)]

    known = np.unique(np.concatenate([rows for data in parts for rows in (data.train, data.validation)]))
    found, asked = features(known), features(task.rows)

    def answer(data: TrialData) -> neighbours.Neighbours:
        own, seen = found[np.searchsorted(known, data.train)], found[np.searchsorted(known, data.validation)]
        truth = data.labels[data.train], data.labels[data.validation]
        return neighbours.answer(own, truth[0], seen, truth[1], asked, data.num_classes, context.objective)

    return NeighboursFound(task.task_id, tuple(answer(data) for data in parts))


def train_again(
    job: TrialJob, context: WorkerContext, device: torch.device, score: float, worker_cache: WorkerCache
) -> None:
    """Train a finished trial again to make its checkpoint; its record stays as it is.

    The same seed gives the same tensors on a CPU. On other devices they may differ in their last bits.

    Raises:
        ContractError: the new score differs from `score`; no checkpoint is left then.
    """
    path = context.checkpoint(job)
    path.unlink(missing_ok=True)
    record = run_trial(
        job,
        context.data(job.config.backbone, job.split, device, job.config.weights),
        lambda epoch: True,
        objective=context.objective,
        weights_name=context.weights_of(job.config),
        device=device,
        checkpoint=path,
        worker_cache=worker_cache,
    )
    if record.state != "complete" or record.score is None or abs(record.score - score) > SAME_SCORE:
        path.unlink(missing_ok=True)
        raise ContractError(
            f"{job.trial_id} was trained again because its checkpoint was gone, and must score {score}, but is "
            f"{record.state} and scores {record.score}: the machine or its packages have changed"
        )


def _ask_once(on_epoch: OnEpoch, answers: list[bool]) -> OnEpoch:
    """Call `on_epoch` only for epochs that have no answer yet, and append its answers to `answers`."""

    asked = 0  # records of this try: one an epoch, but a logistic head has a single one

    def ask(record: EpochRecord) -> bool:
        nonlocal asked
        if asked == len(answers):
            answers.append(on_epoch(record))
        asked += 1
        return answers[asked - 1]

    return ask


def _give_up(task: Task, result: _OutOfMemory, context: WorkerContext) -> Trained | Died:
    """Return the message of a task that no fallback helped: the trial's record, otherwise Died."""
    if result.record is None:
        return Died(task.task_id, f"out of memory: {result.reason}")
    context.resume(result.record.job).unlink(missing_ok=True)
    return Trained(task.task_id, result.record)


def configure_torch(context: WorkerContext) -> None:
    """Set the threads and the precision of this process. Threads are fixed because sums depend on their number."""
    torch.set_num_threads(context.threads)
    precision.set_precision(context.precision)
