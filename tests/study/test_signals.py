"""After a signal a study ends with the signal's exit code, whatever a library makes of the interruption."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import DiskFullError, Interrupted
from harness.study import signals
from harness.study.signals import StopRequest, listening

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def terminal() -> Iterator[None]:
    """SIGHUP does what it does in a terminal, also if nohup started the tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_an_error_that_a_library_makes_of_a_signal_is_taken_for_the_signal() -> None:
    before = signal.getsignal(signal.SIGHUP)
    with pytest.raises(Interrupted) as ended, listening():
        try:
            os.kill(os.getpid(), signal.SIGHUP)
        except Interrupted as error:
            raise RuntimeError("what a library says") from error
    assert ended.value.exit_code == 128 + signal.SIGHUP
    assert signal.getsignal(signal.SIGHUP) is before


def test_without_a_signal_and_for_errors_of_the_harness_nothing_changes() -> None:
    with pytest.raises(ZeroDivisionError), listening():
        raise ZeroDivisionError
    with pytest.raises(DiskFullError), listening() as stop:
        stop.raising = False
        os.kill(os.getpid(), signal.SIGHUP)
        raise DiskFullError("no room")


def test_a_study_that_was_started_with_nohup_goes_on_after_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with listening() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.signum is None
            with pytest.raises(Interrupted):
                os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_outside_the_main_thread_a_block_runs_without_handlers() -> None:
    """Python lets only the main thread set them: a notebook or a server may run a study in another one."""
    before, seen = signal.getsignal(signal.SIGTERM), []

    def run() -> None:
        with listening() as stop:
            stop.check()
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]


def test_the_wakeup_and_the_thread_are_gone_after_the_block() -> None:
    threads = threading.active_count()
    with listening():
        assert threading.active_count() == threads + 1
    assert threading.active_count() == threads
    assert signal.set_wakeup_fd(-1) == -1


# A busy machine is imitated by an end that never comes: the main thread is stuck, in Python or in C code.
STUCK = """
import pathlib, sys, threading, time
from harness.errors import Interrupted
from harness.study import signals
signals.END_SECONDS = 0.3
note = pathlib.Path(sys.argv[1])
with signals.listening() as stop:
    stop.raising = False
    stop.before_end_at_once(note.unlink)
    stop.last_words = "cut short" + chr(10)
    print("ready", flush=True)
    {wait}
"""


@pytest.mark.parametrize(
    ("sign", "wait"),
    [
        (signal.SIGTERM, "while True: time.sleep(0.01)"),
        (signal.SIGINT, "lock = threading.Lock(); lock.acquire(); lock.acquire()"),
    ],
)
def test_an_end_that_takes_too_long_is_cut_short_with_the_signal_s_code(
    tmp_path: Path, sign: signal.Signals, wait: str
) -> None:
    (tmp_path / "note").touch()
    command = [sys.executable, "-c", STUCK.format(wait=wait), str(tmp_path / "note")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(sign)
    _, told = process.communicate()
    assert (process.returncode, told) == (128 + sign, "cut short\n")
    assert not (tmp_path / "note").exists()


def test_a_second_signal_does_what_must_be_done_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    monkeypatch.setattr(signals.os, "_exit", lambda code: done.append(code))
    stop = StopRequest()
    stop.raising = False
    stop.before_end_at_once(lambda: done.append("the note is removed"))
    stop.before_end_at_once(lambda: 1 / 0)
    stop._handle(signal.SIGTERM, None)
    assert done == []
    stop._handle(signal.SIGINT, None)
    assert done == ["the note is removed", 130]
