"""Run a fixed list of trials or scorings to its end. Confirmation and exploration use these two functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.results.records import TrialJob
from harness.study.executors.base import Died, EpochMessage, Message, Result, Scored, ScoreTask, Task, Trained
from harness.study.session import Session

Store = Callable[[str, NDArray[np.float32]], None]  # called with a task's id and its probabilities
MOST_FAILURES = 3


def train_all(session: Session, jobs: Sequence[TrialJob], phase: str) -> None:
    """Train every job that has not finished, in this order, so that an early end leaves complete seeds."""
    state = session.state

    def handle(message: Message) -> bool:
        job = session.jobs[message.task_id]
        match message:
            case EpochMessage(_, record):
                session.note_epoch(job, record)
            case Trained(_, trial):
                session.finish(job, trial)
            case Died(_, reason):
                session.died(job, reason)
        return True

    while True:
        waiting = [job for job in jobs if job.trial_id not in state.later]
        session.observer.phase(phase, len(jobs) - len(waiting), len(jobs))
        if not waiting:
            return
        for job in waiting:
            if len(session.jobs) >= session.places:
                break
            if job.trial_id not in session.jobs:
                attempt = state.attempts[job.trial_id]
                session.start(dataclasses.replace(job, attempt=attempt), 0, {})
        session.poll(handle)


def score_all(session: Session, tasks: Sequence[ScoreTask], phase: str, store: Store, done: int = 0) -> None:
    """Score every task and store its probabilities.

    Args:
        phase: name of the phase for the progress display.
        store: called with each task's id and its probabilities (rows, classes).
        done: number of tasks of the phase that an earlier session scored, for the progress display.

    Raises:
        HarnessError: scoring failed three times.
    """
    jobs = {task.task_id: task.job for task in tasks}
    failures: list[str] = []

    def result(message: Result) -> None:
        assert isinstance(message, Scored)  # a ScoreTask has no other result
        if message.note is not None:
            session.observer.message(f"{message.task_id}: {message.note}")
        if message.trained_again:
            name = jobs[message.task_id].trial_id
            session.observer.message(f"{name}: its checkpoint was gone; it was trained again and got the same score")
        store(message.task_id, message.probabilities)

    def failed(died: Died) -> bool:
        failures.append(died.reason)
        if len(failures) == MOST_FAILURES:
            raise HarnessError(f"scoring on the test split failed three times: {died.reason}")
        return True

    run_all(session, tasks, phase, result, failed, done)


def run_all(
    session: Session,
    tasks: Sequence[Task],
    phase: str,
    result: Callable[[Result], None],
    failed: Callable[[Died], bool],
    done: int = 0,
) -> None:
    """Run tasks that train nothing.

    Args:
        phase, done: as in `score_all`.
        result: called with each task's result.
        failed: called if a task was not done; its answer says whether to try it again.
    """
    waiting = {task.task_id: task for task in tasks}
    running: dict[str, Task] = {}
    total = done + len(tasks)

    def handle(message: Message) -> bool:
        task = running.pop(message.task_id)
        if isinstance(message, Result):
            result(message)
        elif isinstance(message, Died) and failed(message):
            waiting[message.task_id] = task
        return True

    while waiting or running:
        while waiting and len(running) < session.places:
            task_id = next(iter(waiting))
            running[task_id] = waiting.pop(task_id)
            session.submit(running[task_id])
        session.observer.phase(phase, total - len(waiting) - len(running), total)
        session.poll(handle)
