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

import psutil
import pytest
from executor_contract import ExecutorContract, job, pids, until

from harness.errors import Interrupted
from harness.study.executors import forkserver
from harness.study.executors.base import Died, EpochMessage, Message, Trained, TrainTask, WorkerContext, make_executor
from harness.study.executors.processes import ProcessExecutor

ROOT = Path(__file__).resolve().parents[2]


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
    [pid] = pids(made)
    os.kill(pid, signal.SIGKILL)
    died = until(made, (Died,))[-1]
    assert isinstance(died, Died)
    assert "SIGKILL" in died.reason
    assert pids(made) != [pid]
    made.submit(TrainTask(job()))
    assert isinstance(until(made, (Trained,))[-1], Trained)
    made.close()
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize("module", ["forkserver", "ignore_signals"])
def test_what_a_command_does_before_its_slow_imports_imports_no_torch(module: str) -> None:
    """The server's imports run beside the command's own, and it ignores signals before it imports anything slow."""
    code = f"import sys, harness.study.executors.{module}; print(sorted({{'torch', 'numpy'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked from a server on Linux only")
def test_a_signal_to_the_group_leaves_the_server_that_workers_are_forked_from(context: WorkerContext) -> None:
    """Else the coordinator finds nobody to fork from before it has heard its own signal, and ends with that error."""
    made = ProcessExecutor(context, ["cpu"])
    made.submit(TrainTask(job(epochs=1000)))
    until(made, (EpochMessage,))
    worker = psutil.Process(pids(made)[0])
    server = worker.parent()
    assert server is not None
    for sign in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        server.send_signal(sign)
        worker.send_signal(sign)
    died = until(made, (Died,))[-1]
    assert isinstance(died, Died)
    assert "SIGTERM" in died.reason
    assert psutil.Process(pids(made)[0]).parent() == server
    made.close()


def test_a_dead_worker_is_told_before_another_one_is_made(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ended it may be meant to end the study, and then no other one is needed."""
    made = ProcessExecutor(context, ["cpu"])
    made.submit(TrainTask(job(epochs=1000)))
    until(made, (EpochMessage,))
    monkeypatch.setattr(made, "_start", lambda device: pytest.fail("a worker was made"))
    os.kill(pids(made)[0], signal.SIGTERM)

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
    [pid] = pids(made)
    made.submit(TrainTask(replace(job(), split="no such split")))
    until(made, (Died,))
    assert pids(made) == [pid]
    made.close()


def test_workers_end_when_their_parent_is_killed(tmp_path: Path, context: WorkerContext) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import pickle, sys, time\n"
        "from harness.study.executors.processes import ProcessExecutor\n"
        "if __name__ == '__main__':\n"
        f"    context = pickle.load(open({str(tmp_path / 'context')!r}, 'rb'))\n"
        "    made = ProcessExecutor(context, ['cpu'])\n"
        "    print(made._workers[0].process.pid, flush=True)\n"
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


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked from a server on Linux only")
@pytest.mark.parametrize("lives", [0, 1], ids=["at once", "after a first worker"])
def test_a_server_that_dies_while_a_worker_is_awaited_is_started_again(context: WorkerContext, lives: int) -> None:
    for _ in range(lives):
        ProcessExecutor(context, ["cpu"]).close()
    forkserver.warm_up()
    killed = forkserver._server_pid()
    assert killed is not None
    os.kill(killed, signal.SIGKILL)  # it is still at its imports, or has just been asked for a worker
    made = ProcessExecutor(context, ["cpu"])
    made.submit(TrainTask(job()))
    assert isinstance(until(made, (Trained,))[-1], Trained)
    assert forkserver._server_pid() != killed
    made.close()


def test_a_server_that_dies_again_and_again_is_an_error_and_no_end_without_a_word(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An EOFError that reached the command would be printed as "Aborted."."""
    starts = []

    class Process:
        def __init__(self, **options: object) -> None: ...

        def start(self) -> None:
            starts.append(1)
            raise EOFError("unexpected EOF")

    monkeypatch.setattr(forkserver, "warm_up", lambda: None)
    monkeypatch.setattr(forkserver, "restart", lambda: None)
    monkeypatch.setattr(forkserver.context(), "Process", Process)
    with pytest.raises(ConnectionError, match="died 3 times"):
        ProcessExecutor(context, ["cpu"])
    assert len(starts) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked from a server on Linux only")
def test_a_command_that_is_killed_leaves_no_server_and_no_temporary_folder(tmp_path: Path) -> None:
    script = (
        "import time\n"
        "from harness.study.executors import forkserver\n"
        "forkserver.warm_up()\n"
        "print(forkserver._server_pid(), flush=True)\n"
        "time.sleep(600)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    )
    assert command.stdout is not None
    server = psutil.Process(int(command.stdout.readline()))
    assert list(tmp_path.iterdir()), "the server has a socket in a temporary folder"
    until_it_heeds(server)
    command.kill()
    command.wait()
    command.stdout.close()
    with contextlib.suppress(psutil.NoSuchProcess):
        server.wait(timeout=60)
    assert not server.is_running()
    assert list(tmp_path.iterdir()) == []


def until_it_heeds(server: psutil.Process) -> None:
    """Wait until the server has asked for the signal, by the mask of the signals that it handles."""
    mask = 1 << (signal.SIGUSR2 - 1)
    while True:
        status = Path(f"/proc/{server.pid}/status").read_text()
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
        if int(caught.split()[1], 16) & mask:
            return
        time.sleep(0.05)
