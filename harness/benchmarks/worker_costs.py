"""Costs beside training: the start of a worker, and a second sweep on the same data."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np

from harness.benchmarks.task import BATCH, HEAD_EPOCHS, SEED, config_of, rate_of, run_search, study_of
from harness.results.names import SEARCH_SPLIT
from harness.results.records import TrialJob, TrialRecord
from harness.study.executors.base import EpochMessage, Message, Trained, TrainTask, WorkerContext
from harness.study.executors.processes import ProcessExecutor

AGAIN = {0: 10}  # depth -> number of trials of the second sweep
POLL = 60.0  # longest time in seconds without a message from the worker


def worker_seconds(context: WorkerContext, device: str, trials: int = 4) -> tuple[float, float]:
    """Return the seconds from starting a worker to the end of its first epoch, and the median of its next trials.

    The trials train a head for one step on cached activations, so the training itself takes hardly any time.
    """
    train, validation = context.splits[SEARCH_SPLIT]
    context = dataclasses.replace(context, splits={SEARCH_SPLIT: (train[:BATCH], validation[:BATCH])})
    seconds = []
    started = time.perf_counter()
    executor = ProcessExecutor(context, [device])
    try:
        for index in range(trials):
            config = dataclasses.replace(config_of("none", 0), head_lr=rate_of(index), epochs=1, warmup_fraction=0.0)
            job = TrialJob(f"start/{index}", "search", config.strategy, index, config, SEED, SEARCH_SPLIT)
            executor.submit(TrainTask(job))
            seconds.append(_until_epoch(executor, started))
            started = time.perf_counter()
    finally:
        executor.close()
    return seconds[0], float(np.median(seconds[1:]))


def _until_epoch(executor: ProcessExecutor, started: float) -> float:
    """Wait until the running task is done; return the seconds to the end of its first epoch."""
    seen: list[tuple[str, float]] = []

    def handle(message: Message) -> bool:
        seen.append((type(message).__name__, time.perf_counter() - started))
        return True

    while not seen or seen[-1][0] == EpochMessage.__name__:
        before = len(seen)
        executor.poll(handle, POLL)
        assert len(seen) > before, "the worker said nothing for a minute"
    assert [name for name, _ in seen] == [EpochMessage.__name__, Trained.__name__], seen
    return seen[0][1]


def second_sweep(folder: Path, recipe: str, precision: str, device: str, first: list[TrialRecord]) -> float:
    """Return the share of the first sweep's shared work that a second study on the same data has to do again.

    A few heads are enough to measure it, since the first trial of a sweep does that work.
    """
    again, _ = run_search(study_of(folder, recipe, precision, AGAIN, device, epochs=HEAD_EPOCHS, name="again"))
    return sum(r.shared_seconds for r in again) / sum(r.shared_seconds for r in first)
