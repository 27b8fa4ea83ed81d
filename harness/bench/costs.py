"""What is paid beside training: bookkeeping, a worker's start, a second sweep on the same data."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from harness.bench.task import BATCH, HEAD_EPOCHS, HEADS, SEED, config_of, rate_of, searched, study_of
from harness.config.load import parse
from harness.config.space import space
from harness.results.events import EventLog
from harness.results.records import TrialRecord
from harness.study.executors.base import Message, TrainTask, WorkerContext
from harness.study.executors.processes import ProcessExecutor
from harness.study.search import StrategySearch
from harness.study.splits import SEARCH_SPLIT
from harness.training.trial import TrialJob

POLL = 60.0  # seconds that a worker may keep silent


def bookkeeping(trials: int = 1000) -> float:
    """Seconds a trial waits for Optuna (ask, ten looks of the pruner, tell) and for the event log."""
    search = {
        "head_lr": {"low": 1e-4, "high": 1e-1, "log": True}, "backbone_lr": {"low": 1e-6, "high": 1e-2, "log": True},
        "unfreeze_depth": {"low": 1, "high": 5}, "weight_decay": {"low": 1e-6, "high": 0.1, "log": True},
    }  # fmt: skip
    here = space(parse({"search": search}, "bench"), "fine_tuning")
    made, rng = StrategySearch(here, "accuracy", 0, 10), np.random.default_rng(0)
    with TemporaryDirectory() as folder:
        log = EventLog(Path(folder) / "events.jsonl")
        started = time.perf_counter()
        for slot in range(trials):
            asked = made.ask(slot, 0)
            made.accept(asked, str(slot))
            log.append("trial_started", {"config": asked.config.to_json(), "params": asked.params}, sync=False)
            for epoch in range(1, 11):
                log.append("epoch", {"epoch": epoch, "validation": dict.fromkeys("abcdefgh", 0.5)}, sync=False)
                made.should_prune(str(slot), epoch, float(rng.random()))
            log.append("trial_finished", {"slot": slot, "config": asked.config.to_json()})
            made.tell_score(str(slot), float(rng.random()))
        seconds = time.perf_counter() - started
        log.close()
    return seconds / trials


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

    while not seen or seen[-1][0] == "EpochDone":
        before = len(seen)
        executor.poll(handle, POLL)
        assert len(seen) > before, "the worker said nothing for a minute"
    assert [name for name, _ in seen] == ["EpochDone", "Trained"], seen
    return seen[0][1]


def second_sweep(folder: Path, recipe: str, precision: str, device: str, first: list[TrialRecord]) -> float:
    """Share of the first sweep's seconds of shared work that the same heads need again under another study's name."""
    again, _ = searched(study_of(folder, recipe, precision, HEADS, device, epochs=HEAD_EPOCHS, name="again"))
    return sum(r.shared_seconds for r in again) / sum(r.shared_seconds for r in first)
