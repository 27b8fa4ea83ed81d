"""Both executors keep the contract; what concerns the death of a worker concerns `processes` only."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from executor_contract import ExecutorContract, job, until

from harness.errors import Interrupted
from harness.study.executors import make_executor
from harness.study.executors.base import Died, EpochMessage, Message, Trained, TrainTask, WorkerContext
from harness.study.executors.processes import ProcessExecutor
from harness.training.frozen_features.worker_cache import Plan


@pytest.fixture
def context(tmp_path: Path) -> WorkerContext:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", rng.integers(0, 255, (40, 32, 32, 3)).astype(np.uint8))
    rows = np.arange(40)
    return WorkerContext(
        images={32: tmp_path / "images.npy"},
        image_size=32,
        labels=(rows % 2).astype(np.int64),
        keys=rows.astype(np.uint64),
        splits={"search": (rows[:24], rows[24:32])},
        classes=("dark", "light"),
        objective="accuracy",
        weights="none",
        threads=1,
        checkpoints=tmp_path / "checkpoints",
        plan=Plan(),
    )


class TestInline(ExecutorContract):
    kind = "inline"


class TestProcesses(ExecutorContract):
    kind = "processes"


def test_both_executors_give_the_same_numbers(context: WorkerContext) -> None:
    losses = []
    for kind in ("inline", "processes"):
        made = make_executor(kind, context, ["cpu"])
        made.submit(TrainTask(job()))
        losses.append([m.record.train_loss for m in until(made, (Trained,)) if isinstance(m, EpochMessage)])
        made.close()
    assert losses[0] == losses[1]


def test_a_killed_worker_is_seen_and_replaced(context: WorkerContext) -> None:
    made = ProcessExecutor(context, ["cpu"])
    made.submit(TrainTask(job(epochs=1000)))
    until(made, (EpochMessage,))
    [pid] = made.pids()
    os.kill(pid, signal.SIGKILL)
    died = until(made, (Died,))[-1]
    assert isinstance(died, Died)
    assert "SIGKILL" in died.reason
    assert made.pids() != [pid]
    made.submit(TrainTask(job()))
    assert isinstance(until(made, (Trained,))[-1], Trained)
    made.close()
    assert not psutil.pid_exists(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked from a server on Linux only")
def test_a_signal_to_the_group_leaves_the_server_that_workers_are_forked_from(context: WorkerContext) -> None:
    """Else the coordinator finds nobody to fork from before it has heard its own signal, and ends with that error."""
    made = ProcessExecutor(context, ["cpu"])
    made.submit(TrainTask(job(epochs=1000)))
    until(made, (EpochMessage,))
    worker = psutil.Process(made.pids()[0])
    server = worker.parent()
    assert server is not None
    for sign in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        server.send_signal(sign)
        worker.send_signal(sign)
    died = until(made, (Died,))[-1]
    assert isinstance(died, Died)
    assert "SIGTERM" in died.reason
    assert psutil.Process(made.pids()[0]).parent() == server
    made.close()


def test_a_dead_worker_is_told_before_another_one_is_made(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ended it may be meant to end the study, and then no other one is needed."""
    made = ProcessExecutor(context, ["cpu"])
    made.submit(TrainTask(job(epochs=1000)))
    until(made, (EpochMessage,))
    monkeypatch.setattr(made, "_start", lambda device: pytest.fail("a worker was made"))
    os.kill(made.pids()[0], signal.SIGTERM)

    def handle(message: Message) -> bool:
        if isinstance(message, Died):
            raise Interrupted("stopped by SIGTERM", 15)
        return True

    with pytest.raises(Interrupted):
        while True:
            made.poll(handle, 5)
    made.close()


def test_an_error_in_a_worker_does_not_end_the_worker(context: WorkerContext) -> None:
    made = ProcessExecutor(context, ["cpu"])
    [pid] = made.pids()
    made.submit(TrainTask(replace(job(), split="no such split")))
    until(made, (Died,))
    assert made.pids() == [pid]
    made.close()


def test_workers_end_when_their_parent_is_killed(tmp_path: Path, context: WorkerContext) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import pickle, sys, time\n"
        "from harness.study.executors.processes import ProcessExecutor\n"
        "if __name__ == '__main__':\n"
        f"    context = pickle.load(open({str(tmp_path / 'context')!r}, 'rb'))\n"
        "    made = ProcessExecutor(context, ['cpu'])\n"
        "    print(made.pids()[0], flush=True)\n"
        "    time.sleep(600)\n"
    )
    (tmp_path / "context").write_bytes(pickle.dumps(context))
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = psutil.Process(int(parent.stdout.readline()))
    time.sleep(0.5)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    with contextlib.suppress(psutil.NoSuchProcess):
        worker.wait(timeout=60)
    assert not worker.is_running()
