"""What is paid beside training: a worker's start, a second sweep on the same data."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np

from harness.benchmarks.task import BATCH, HEAD_EPOCHS, SEED, config_of, rate_of, searched, study_of
from harness.results.names import SEARCH_SPLIT
from harness.results.records import TrialJob, TrialRecord
from harness.study.executors.base import EpochMessage, Message, Trained, TrainTask, WorkerContext
from harness.study.executors.processes import ProcessExecutor

AGAIN = {0: 10}  # trials of the second sweep, all heads
POLL = 60.0  # seconds that a worker may keep silent


def worker_seconds(context: WorkerContext, device: str, trials: int = 4) -> tuple[float, float]:
    """Seconds from starting a worker to the end of its first, one-step epoch; and the median of its next trials'.

    The trials train a head on shared activations of one batch, so that hardly anything but the way there is timed.
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
    """Seconds to the first epoch of the task in flight; returns when the task is done."""
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
    """Share of the first sweep's seconds of shared work that heads need again under another study's name.

    A few of them tell, since the first one of a sweep does that work.
    """
    again, _ = searched(study_of(folder, recipe, precision, AGAIN, device, epochs=HEAD_EPOCHS, name="again"))
    return sum(r.shared_seconds for r in again) / sum(r.shared_seconds for r in first)
