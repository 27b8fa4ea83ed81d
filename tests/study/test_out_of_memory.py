"""A task that runs out of memory climbs the ladder rung by rung, its record says so, and the study goes on."""

from __future__ import annotations

import dataclasses
import gc
import json
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from executor_contract import pids
from safetensors.torch import load_file
from scarce_memory import MESSAGE, Scarce, misses, scarce
from small_study import Watching, World, records, runs

from harness.config.fit import Fit
from harness.config.initial_weights import DEFAULT
from harness.config.trial import TrialConfig
from harness.model.transfer import TransferModel
from harness.results import event_types
from harness.results.records import EpochRecord, TrialJob, TrialRecord
from harness.study import export, session
from harness.study.executors import run_task as doing
from harness.study.executors.base import (
    Died,
    EpochMessage,
    FreshWorker,
    Message,
    Scored,
    ScoreTask,
    Task,
    Trained,
    TrainTask,
    WorkerContext,
    make_executor,
)
from harness.study.executors.processes import ProcessExecutor
from harness.study.executors.run_task import run_task
from harness.training import checkpoint, contract, loop
from harness.training.frozen_features.initial_models import InitialModels
from harness.training.frozen_features.worker_cache import WorkerCache

CPU = torch.device("cpu")
CONFIG = TrialConfig(
    "fine_tuning", "mobilenet_v3_small", 1, 1e-2, 1e-3, batchnorm="fixed_stats", batch_size=8, epochs=2
)
CALM = dataclasses.replace(CONFIG, backbone="shufflenet_v2_x0_5")  # no dropout
PLACES: dict[str, tuple[Any, str, int]] = {  # what is called, and at which of its calls in a try memory runs out
    "building the model": (InitialModels, "checkout", 1),
    "the first step": (loop, "_backward", 1),
    "the middle of the second epoch": (loop, "_backward", 5),
    "evaluation": (loop, "predict", 1),
    "keeping the best epoch": (checkpoint, "copy_to_cpu", 1),
    "the contract at the end": (contract.Phase, "check_end", 1),
}
RELEASED = "ran out of memory; what was done: caches released"


@pytest.fixture
def forward(monkeypatch: pytest.MonkeyPatch) -> None:
    """What scarce memory changes in this process is put back."""
    monkeypatch.setattr(TransferModel, "forward", TransferModel.forward)


def job(config: TrialConfig = CONFIG, name: str = "fine_tuning/0") -> TrialJob:
    return TrialJob(name, "search", "fine_tuning", 0, config, 0, "search")


def run_out(
    monkeypatch: pytest.MonkeyPatch, place: str, tries: int, error: Callable[[], Exception], seconds: float = 0.0
) -> list[int]:
    """Let memory run out at a place of the first tries; the list grows by one with each try that begins."""
    begun: list[int] = []
    calls = [0]
    owner, name, at = PLACES[place]
    real_take = InitialModels.checkout

    def take(*args: Any) -> Any:
        begun.append(1)
        calls[0] = 0
        return real_take(*args)

    monkeypatch.setattr(InitialModels, "checkout", take)
    real = getattr(owner, name)

    def full(*args: Any, **options: Any) -> Any:
        if owner is InitialModels and name == "checkout":
            begun.append(1)
            calls[0] = 0
        calls[0] += 1
        if calls[0] == at and len(begun) <= tries:
            time.sleep(seconds)
            raise error()
        return (real_take if name == "checkout" else real)(*args, **options)

    monkeypatch.setattr(owner, name, full)
    return begun


def device_is_full() -> Exception:
    return torch.OutOfMemoryError(MESSAGE)


def trained(
    context: WorkerContext, task: Task | None = None, *, replaceable: bool = False, sharing: WorkerCache | None = None
) -> tuple[Any, list[EpochRecord]]:
    """The answer to a task, and the epochs that were told."""
    told: list[EpochRecord] = []

    def on_epoch(record: EpochRecord) -> bool:
        told.append(record)
        return True

    task = task or TrainTask(job())
    return run_task(task, context, CPU, on_epoch, sharing or context.worker_cache(), replaceable=replaceable), told


def numbers(record: TrialRecord) -> list[EpochRecord]:
    return [dataclasses.replace(epoch, seconds=0.0) for epoch in record.epochs]


def assert_same(one: TrialRecord, other: TrialRecord) -> None:
    """The same in everything but times and what is said about memory."""
    assert numbers(one) == numbers(other)
    assert (one.state, one.score, one.best_epoch, one.checkpoint) == (
        other.state,
        other.score,
        other.best_epoch,
        other.checkpoint,
    )


# --- the first rung


@pytest.mark.parametrize("place", PLACES)
def test_a_trial_that_gets_through_once_caches_are_released_has_the_same_bits(
    place: str, context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, _ = trained(context)
    best = load_file(context.checkpoint(job()))
    begun = run_out(monkeypatch, place, 1, device_is_full)
    done, told = trained(context)
    assert len(begun) == 2
    assert_same(done.record, undisturbed.record)
    again = load_file(context.checkpoint(job()))
    assert all(torch.equal(best[name], again[name]) for name in best)
    assert done.record.warnings == (RELEASED, *undisturbed.record.warnings)
    assert done.record.micro_batch is None
    assert [record.epoch for record in told] == [1, 2]  # none of them twice


def test_what_a_process_holds_is_gone_before_the_next_try(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial's model, the models at hand, and images on the device."""
    held: list[weakref.ref[Any]] = []
    alive: list[int] = []
    run_out(monkeypatch, "the middle of the second epoch", 1, device_is_full)
    real_take, real_data, devices = InitialModels.checkout, WorkerContext.data, []

    def take(*args: Any) -> Any:
        alive.append(sum(ref() is not None for ref in held))
        model, starting, at_hand = real_take(*args)
        held.extend(weakref.ref(part) for part in (model, starting, starting.model))
        return model, starting, at_hand

    def data(
        self: WorkerContext, backbone: str, split: str, device: torch.device | None = None, weights: str = DEFAULT
    ) -> Any:
        devices.append(device)
        if device is not None:  # as a GPU would be given them
            self._moved[Fit(32), device] = torch.zeros(1)
            held.append(weakref.ref(self._moved[Fit(32), device]))
        return real_data(self, backbone, split, device, weights)

    monkeypatch.setattr(InitialModels, "checkout", take)
    monkeypatch.setattr(WorkerContext, "data", data)
    gc.disable()  # what waits for the collector is what fills a device
    try:
        done, _ = trained(context)
    finally:
        gc.enable()
    assert done.record.state == "complete"
    assert alive == [1, 0]
    assert devices == [CPU, None]  # once memory ran out images stay off the device


def test_the_full_machine_climbs_the_same_ladder(context: WorkerContext, monkeypatch: pytest.MonkeyPatch) -> None:
    run_out(monkeypatch, "the first step", 2, lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 GB"))
    done, _ = trained(context)
    assert (done.record.state, done.record.micro_batch) == ("complete", 4)


def test_another_error_climbs_nothing(context: WorkerContext, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = run_out(monkeypatch, "the first step", 1, lambda: RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        trained(context)
    assert len(begun) == 1


def test_the_tries_that_were_lost_are_spent_but_no_part_of_the_cost(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_out(monkeypatch, "the first step", 2, device_is_full, seconds=0.5)
    done, _ = trained(context)
    assert done.record.seconds_spent - done.record.seconds_alone > 1.0


def test_an_answer_is_not_asked_for_again(context: WorkerContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that was pruned and runs out of memory behind that is pruned again, at the same epoch."""
    run_out(monkeypatch, "the contract at the end", 1, device_is_full)
    told: list[int] = []

    def stop(record: EpochRecord) -> bool:
        told.append(record.epoch)
        return False

    done = run_task(TrainTask(job()), context, CPU, stop, context.worker_cache())
    assert isinstance(done, Trained)
    assert (done.record.state, told) == ("pruned", [1])


# --- the second and the third rung


def test_the_rungs_are_climbed_in_order_and_the_record_names_them(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = run_out(monkeypatch, "the first step", 3, device_is_full)
    asked, _ = trained(context, replaceable=True)
    assert isinstance(asked, FreshWorker)
    assert (len(begun), asked.task.fallback.released, asked.task.fallback.micro_batch) == (2, True, None)
    done, _ = trained(context, asked.task, replaceable=True)  # as the fresh worker does it
    assert len(begun) == 4
    assert done.record.micro_batch == 4
    assert done.record.warnings[0] == f"{RELEASED}, then a fresh worker, then micro-batches of 4 images"
    assert "dropout draws other numbers" in done.record.warnings[1]


def test_a_fresh_worker_is_not_asked_for_epochs_that_were_told(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, _ = trained(context)
    run_out(monkeypatch, "the middle of the second epoch", 2, device_is_full)
    asked, first = trained(context, replaceable=True)
    assert isinstance(asked, FreshWorker)
    done, second = trained(context, asked.task, replaceable=True)
    assert [record.epoch for record in (*first, *second)] == [1, 2]
    assert_same(done.record, undisturbed.record)


def test_passes_shrink_until_they_fit_and_the_numbers_are_the_whole_batch_s(
    context: WorkerContext, forward: None, tmp_path: Path
) -> None:
    undisturbed, _ = trained(context, TrainTask(job(CALM)))
    tight = scarce(context, tmp_path / "log", room=2 * 2)
    done, _ = trained(tight, TrainTask(job(CALM)))
    assert [images for _, images, _ in misses(tight.log)] == [8, 8, 4]
    record = done.record
    assert (record.state, record.micro_batch) == ("complete", 2)
    assert record.warnings == (f"{RELEASED}, then micro-batches of 4, then 2 images",)
    for one, other in zip(record.epochs, undisturbed.record.epochs, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)
        assert one.validation["accuracy"] == other.validation["accuracy"]


def test_behind_the_last_rung_a_trial_is_out_of_memory(context: WorkerContext, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = run_out(monkeypatch, "the middle of the second epoch", 99, device_is_full)
    note = context.resume(job())
    note.parent.mkdir()
    note.write_bytes(b"of a trial that was killed")
    done, told = trained(context)
    record = done.record
    assert (record.state, record.reason, record.score, record.micro_batch) == ("out_of_memory", MESSAGE, None, 2)
    assert record.warnings[0] == f"{RELEASED}, then micro-batches of 4, then 2 images"
    assert (len(begun), [epoch.epoch for epoch in told]) == (4, [1])
    assert not note.exists()


def test_scoring_climbs_too(context: WorkerContext, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(context)
    task = ScoreTask(job(), np.arange(32, 40))
    whole, _ = trained(context, task)
    real, sizes = doing.predict_images, []

    def small(model: Any, data: Any, rows: Any, at_once: int, *rest: Any) -> Any:
        sizes.append(at_once)
        if at_once > 2:
            raise torch.OutOfMemoryError(MESSAGE)
        return real(model, data, rows, at_once, *rest)

    monkeypatch.setattr(doing, "predict_images", small)
    scored, _ = trained(context, task)
    assert isinstance(scored, Scored)
    assert sizes == [8, 8, 4, 2]
    assert np.allclose(scored.probabilities, whole.probabilities, atol=1e-6)
    assert scored.note == f"{RELEASED}, then micro-batches of 4, then 2 images"
    assert whole.note is None


def test_a_scoring_that_nothing_helps_is_as_one_whose_worker_died(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(context)

    def full(*args: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(doing, "predict_images", full)
    task = ScoreTask(job(), np.arange(32, 40))
    assert trained(context, task)[0] == Died(task.task_id, "out of memory: host memory")


# --- workers


def until_done(executor: ProcessExecutor) -> list[Message]:
    got: list[Message] = []

    def handle(message: Message) -> bool:
        got.append(message)
        return True

    end = time.monotonic() + 120
    while not got or isinstance(got[-1], EpochMessage):
        assert time.monotonic() < end, got
        executor.poll(handle, 0.1)
    return got


@pytest.fixture
def workers(context: WorkerContext, tmp_path: Path) -> Iterator[Callable[..., ProcessExecutor]]:
    made: list[ProcessExecutor] = []

    def start(**limits: Any) -> ProcessExecutor:
        made.append(ProcessExecutor(scarce(context, tmp_path / "log", **limits), ["cpu"]))
        return made[-1]

    yield start
    for executor in made:
        executor.close()


def test_a_fresh_worker_takes_the_task_over_and_no_attempt_is_counted(
    context: WorkerContext, workers: Callable[..., ProcessExecutor], tmp_path: Path
) -> None:
    undisturbed, _ = trained(context)
    executor = workers(spoiled_first=True)
    [pid] = pids(executor)
    executor.submit(TrainTask(job()))
    got = until_done(executor)
    assert [type(message) for message in got] == [EpochMessage, EpochMessage, Trained]
    assert [of for of, *_ in misses(tmp_path / "log")] == [pid, pid]  # the first try, and with caches released
    assert pids(executor) != [pid]
    assert isinstance(got[-1], Trained)
    assert_same(got[-1].record, undisturbed.record)
    assert got[-1].record.attempt == 1
    assert got[-1].record.warnings[0] == f"{RELEASED}, then a fresh worker"
    [pid] = pids(executor)
    executor.submit(TrainTask(job(name="fine_tuning/1")))
    assert isinstance(until_done(executor)[-1], Trained)
    assert pids(executor) == [pid]  # which lasts


def test_a_worker_asks_for_one_fresh_process_only(workers: Callable[..., ProcessExecutor], tmp_path: Path) -> None:
    executor = workers(never=(1,))
    executor.submit(TrainTask(job()))
    [message] = until_done(executor)
    assert isinstance(message, Trained)
    assert message.record.state == "out_of_memory"
    tried = misses(tmp_path / "log")
    assert [images for _, images, _ in tried] == [8, 8, 8, 4, 2]
    assert len({pid for pid, *_ in tried}) == 2
    executor.submit(TrainTask(job(dataclasses.replace(CONFIG, unfreeze_depth=2), "fine_tuning/1")))
    assert isinstance(until_done(executor)[-1], Trained)


# --- a study


@pytest.mark.parametrize("executor", [pytest.param("inline", marks=pytest.mark.slow), "processes"])
def test_a_study_in_which_some_trials_run_out_of_memory_goes_on_to_its_verdict(
    executor: str, world: World, forward: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of 16 fits with one stage training, half of it with three; with two nothing does."""
    tried = [{"strategy": "fine_tuning", "unfreeze_depth": depth, "head_lr": 2e-3} for depth in (2, 1)]
    world.write(executor=executor, trials=3, **{"try": tried})
    log = tmp_path / "log"
    limits: dict[str, Any] = {"room": 32, "never": (2,)}
    contexts: list[Scarce] = []

    def made(kind: str, context: WorkerContext, devices: list[str]) -> Any:
        contexts.append(scarce(context, log, **limits))
        return make_executor(kind, contexts[-1], devices)

    monkeypatch.setattr(session, "make_executor", made)
    monkeypatch.setattr(export, "log_recommended", lambda session, trial_id: None)  # which takes seconds
    watching = Watching()
    world.run(watching=watching)

    found = {r.trial_id: r for r in records(world)}
    searched = {i: (r.state, r.micro_batch) for i, r in found.items() if r.kind == "search"}
    assert searched == {
        **{f"feature_extraction/{slot}": ("complete", None) for slot in range(3)},
        "fine_tuning/0": ("complete", 8),
        "fine_tuning/1": ("out_of_memory", 2),
        "fine_tuning/2": ("complete", None),
    }
    fresh = ", then a fresh worker" if executor == "processes" else ""
    assert found["fine_tuning/0"].warnings[0] == f"{RELEASED}{fresh}, then micro-batches of 8 images"
    assert all(r.state == "complete" for r in found.values() if r.kind == "confirmation")
    assert {r.attempt for r in found.values()} == {1}
    assert world.of(event_types.TrialInterrupted) == []
    told = [(done.trial_id, done.epoch) for done in world.of(event_types.EpochDone)]
    assert len(told) == len(set(told))

    summary = json.loads((world.root / "reports" / "tiny" / "summary.json").read_text())
    assert summary["verdict"]["outcome"] in ("fine_tuning", "feature_extraction", "equal", "undecided")
    assert summary["strategies"]["fine_tuning"]["trials"]["out_of_memory"] == 1
    table = pd.read_csv(world.root / "reports" / "tiny" / "trials.csv").set_index("trial_id")
    assert table.loc["fine_tuning/0", "micro_batch"] == 8
    assert pd.isna(table.loc["fine_tuning/2", "micro_batch"])
    assert "then micro-batches of 8 images" in (world.root / "reports" / "tiny" / "index.html").read_text()
    tags = {run.data.tags["harness.key"]: run.data.tags for run in runs("tiny", "search")}
    assert tags["fine_tuning/0#1"]["micro_batch"] == "8"
    assert "micro_batch" not in tags["fine_tuning/2#1"]
