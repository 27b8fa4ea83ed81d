"""After a signal a study ends with the signal's exit code, whatever a library makes of the interruption."""

from __future__ import annotations

import os
import signal

import pytest

from harness.errors import DiskFullError, Interrupted
from harness.study.signals import listening


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
