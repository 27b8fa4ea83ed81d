"""A process carries out a task, and climbs the ladder of `harness.training.out_of_memory` where memory runs out."""

from __future__ import annotations

import dataclasses
import traceback
from dataclasses import dataclass
from pathlib import Path

import torch

from harness.errors import ContractError, DiskFullError, ResourceError
from harness.results.records import EpochRecord, TrialJob, TrialRecord
from harness.study.executors.base import Died, FreshWorker, NoRoom, Scored, Task, Trained, TrainTask, WorkerContext
from harness.training import out_of_memory, precision
from harness.training.frozen_features.worker_cache import WorkerCache
from harness.training.loop import predict_images
from harness.training.trial import OnEpoch, restore, run_trial

SAME_SCORE = 1e-6  # how far a model that is trained again may score from what it scored


def run_task_safely(
    task: Task,
    context: WorkerContext,
    device: torch.device,
    on_epoch: OnEpoch,
    sharing: WorkerCache,
    *,
    replaceable: bool = False,
) -> Trained | Scored | Died | NoRoom | FreshWorker:
    """Carry out one task as `run_task` does, and return an error as an answer instead of raising it."""
    try:
        return run_task(task, context, device, on_epoch, sharing, replaceable=replaceable)
    except DiskFullError as error:
        return NoRoom(task.task_id, str(error))
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return Died(task.task_id, f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})")


def run_task(
    task: Task,
    context: WorkerContext,
    device: torch.device,
    on_epoch: OnEpoch,
    sharing: WorkerCache,
    *,
    replaceable: bool = False,
) -> Trained | Scored | Died | FreshWorker:
    """Carry out one task in this process, with what its earlier tasks left to share.

    Args:
        on_epoch: told each epoch of a trial once, also where the trial has to start again. The answer counts for every
            try, although in micro-batches an epoch may have come to other numbers than those that were told.
        replaceable: a fresh process can be asked for; without it no FreshWorker is answered.
    """
    climb, job = task.climb, task.job
    while True:
        answers = list(climb.answers)
        done = _run_once(
            dataclasses.replace(task, climb=climb), context, device, _asking_once(on_epoch, answers), sharing
        )
        if not isinstance(done, _Full):
            return done
        higher = climb.next_step(job.config.batch_size, replaceable=replaceable)
        if higher is None:
            return _given_up(task, done, context)
        spent = done.record.seconds_spent if done.record is not None else None
        climb = dataclasses.replace(higher, answers=tuple(answers), seconds=spent or climb.seconds)
        context.release()
        out_of_memory.release(sharing, device)
        if climb.fresh_worker and not task.climb.fresh_worker:
            return FreshWorker(dataclasses.replace(task, climb=climb))


@dataclass(frozen=True)
class _Full:
    """A try that ran out of memory."""

    reason: str
    record: TrialRecord | None  # of a trial; None where none had begun


def _run_once(
    task: Task, context: WorkerContext, device: torch.device, on_epoch: OnEpoch, sharing: WorkerCache
) -> Trained | Scored | _Full:
    """One try, from the beginning; nothing refers to what it held when this returns."""
    job, climb = task.job, task.climb
    try:
        # Once memory ran out, images stay off the device for the rest of the task.
        data = context.data(job.config.backbone, job.split, None if climb.released else device)
        if isinstance(task, TrainTask):
            record = run_trial(
                job,
                data,
                on_epoch,
                objective=context.objective,
                weights_name=context.weights,
                device=device,
                checkpoint=context.checkpoint(job),
                resume=context.resume(job),
                worker_cache=sharing,
                fallback=climb,
            )
            if record.state == "out_of_memory":
                return _Full(record.reason or "", record)
            return Trained(task.task_id, record)
        again = False
        try:
            model = restore(job, data, context.weights, device, context.checkpoint(job))
        except (ResourceError, ContractError):
            if task.score is None:
                raise
            train_again(job, context, device, task.score, sharing)
            model, again = restore(job, data, context.weights, device, context.checkpoint(job)), True
        at_once = climb.micro_batch or job.config.batch_size
        found = predict_images(model, data, task.rows, at_once, device, task.shift)
        return Scored(task.task_id, found, climb.describe(job.config.batch_size), again)
    except Exception as error:
        if not out_of_memory.ran_out(error):
            raise
        return _Full(out_of_memory.reason(error), None)


def train_again(
    job: TrialJob, context: WorkerContext, device: torch.device, score: float, sharing: WorkerCache
) -> None:
    """Make the checkpoint of a finished trial anew; its record stays as it is.

    The same seed gives the same tensors on a CPU. Elsewhere they may differ in their last bits.

    Raises:
        ContractError: it does not score what it scored; there is no checkpoint then.
    """
    path = context.checkpoint(job)
    path.unlink(missing_ok=True)
    record = run_trial(
        job,
        context.data(job.config.backbone, job.split, device),
        lambda epoch: True,
        objective=context.objective,
        weights_name=context.weights,
        device=device,
        checkpoint=path,
        worker_cache=sharing,
    )
    if record.state != "complete" or record.score is None or abs(record.score - score) > SAME_SCORE:
        path.unlink(missing_ok=True)
        raise ContractError(
            f"{job.trial_id}, trained again because its checkpoint was gone, is {record.state} and scores "
            f"{record.score} instead of {score}: the machine or its packages are not what they were"
        )


def _asking_once(on_epoch: OnEpoch, answers: list[bool]) -> OnEpoch:
    """Ask for epochs that have no answer yet, and remember what was answered."""

    def ask(record: EpochRecord) -> bool:
        if record.epoch > len(answers):
            answers.append(on_epoch(record))
        return answers[record.epoch - 1]

    return ask


def _given_up(task: Task, full: _Full, context: WorkerContext) -> Trained | Died:
    """The end of a task that no rung helped: a state where a trial had begun, else as if the worker had died."""
    if full.record is None:
        return Died(task.task_id, f"out of memory: {full.reason}")
    context.resume(task.job).unlink(missing_ok=True)
    return Trained(task.task_id, full.record)


def settle(context: WorkerContext) -> None:
    """Set what this process trains with: threads are fixed, because sums depend on their number."""
    torch.set_num_threads(context.threads)
    precision.set_precision(context.precision)
