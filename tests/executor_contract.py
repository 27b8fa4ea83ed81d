"""What every executor promises, written once; a subclass says which executor keeps it (see test_executors.py)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from harness.config.trial import TrialConfig
from harness.errors import Interrupted
from harness.results.records import TrialJob
from harness.study.executors.base import (
    Died,
    EpochMessage,
    Executor,
    Message,
    Scored,
    ScoreTask,
    Trained,
    TrainTask,
    WorkerContext,
    make_executor,
)
from harness.study.executors.processes import ProcessExecutor

CONFIG = TrialConfig(
    "fine_tuning", "mobilenet_v3_small", 1, 1e-2, 1e-3, batchnorm="fixed_stats", batch_size=8, epochs=2
)


def job(name: str = "fine_tuning/0", **changes: object) -> TrialJob:
    return TrialJob(name, "search", "fine_tuning", 0, replace(CONFIG, **changes), 0, "search")  # type: ignore[arg-type]


def until(executor: Executor, kinds: tuple[type, ...], go_on: bool = True, seconds: float = 120) -> list[Message]:
    """Poll until a message of one of these kinds came."""
    got: list[Message] = []

    def handle(message: Message) -> bool:
        got.append(message)
        return go_on

    end = time.monotonic() + seconds
    while not any(isinstance(message, kinds) for message in got):
        assert time.monotonic() < end, got
        executor.poll(handle, 0.1)
    return got


def pids(executor: ProcessExecutor) -> list[int | None]:
    """The processes that work now."""
    return [worker.process.pid for worker in executor._workers]


class ExecutorContract:
    """A subclass sets `kind`."""

    kind: str

    @pytest.fixture
    def executor(self, context: WorkerContext) -> Iterator[Executor]:
        made = make_executor(self.kind, context, ["cpu"])
        yield made
        made.close()

    def test_a_task_streams_its_epochs_and_ends_with_its_record(self, executor: Executor) -> None:
        executor.submit(TrainTask(job()))
        got = until(executor, (Trained,))
        assert [type(message) for message in got] == [EpochMessage, EpochMessage, Trained]
        assert {message.task_id for message in got} == {"fine_tuning/0"}
        assert isinstance(got[-1], Trained)
        assert got[-1].record.state == "complete"
        assert [e.record for e in got if isinstance(e, EpochMessage)] == list(got[-1].record.epochs)

    def test_a_no_ends_the_trial_as_pruned(self, executor: Executor) -> None:
        executor.submit(TrainTask(job(epochs=4)))
        got = until(executor, (Trained,), go_on=False)
        assert [type(message) for message in got] == [EpochMessage, Trained]
        assert isinstance(got[-1], Trained)
        assert got[-1].record.state == "pruned"

    def test_a_finished_trial_s_model_is_scored(self, executor: Executor) -> None:
        executor.submit(TrainTask(job()))
        until(executor, (Trained,))
        executor.submit(ScoreTask(job(), np.arange(32, 40)))
        [scored] = until(executor, (Scored,))
        assert isinstance(scored, Scored)
        assert scored.probabilities.shape == (8, 2)

    def test_a_trial_that_diverges_is_a_record_and_the_next_one_runs(self, executor: Executor) -> None:
        executor.submit(TrainTask(job(head_lr=1e30)))
        ended = until(executor, (Trained,))[-1]
        assert isinstance(ended, Trained)
        assert ended.record.state == "diverged"
        executor.submit(TrainTask(job("fine_tuning/1")))
        following = until(executor, (Trained,))[-1]
        assert isinstance(following, Trained)
        assert following.record.state == "complete"

    def test_an_error_is_an_answer_and_the_next_task_runs(self, executor: Executor) -> None:
        executor.submit(TrainTask(replace(job(), split="no such split")))
        died = until(executor, (Died,))[-1]
        assert isinstance(died, Died)
        assert "no such split" in died.reason
        assert ".py:" in died.reason
        executor.submit(TrainTask(job()))
        until(executor, (Trained,))

    def test_a_model_that_is_gone_is_an_answer(self, executor: Executor) -> None:
        executor.submit(ScoreTask(job("never/trained"), np.arange(32, 40)))
        died = until(executor, (Died,))[-1]
        assert isinstance(died, Died)
        assert "never-trained.safetensors" in died.reason

    def test_what_the_handler_raises_reaches_the_caller(self, executor: Executor) -> None:
        def handle(message: Message) -> bool:
            raise Interrupted("stopped by SIGINT", 2)

        executor.submit(TrainTask(job()))
        end = time.monotonic() + 120
        with pytest.raises(Interrupted):
            while time.monotonic() < end:
                executor.poll(handle, 0.1)

    def test_close_leaves_nothing_running_in_mid_trial_too(self, context: WorkerContext) -> None:
        made = make_executor(self.kind, context, ["cpu"])
        made.submit(TrainTask(job(epochs=1000)))
        began = time.monotonic()
        made.close()
        assert time.monotonic() - began < 5
