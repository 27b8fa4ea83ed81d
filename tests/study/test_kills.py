"""What ends a study's processes, dealt to it as a user runs it: signals, and kills at any moment."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest
from tortured import SMALL, Undisturbed, finish, lines, said, until

from harness.benchmarks.fault_injection.checks import broken_promises
from harness.benchmarks.fault_injection.faults import Tally, inject_faults
from harness.benchmarks.fault_injection.sandbox import NAME, Sandbox, prepare, workers
from harness.results.event_types import SessionEnded
from harness.results.events import of_type

Send = Callable[[int, int], None]
TO_EACH = [(sign, send) for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) for send in (os.kill, os.killpg)]


def test_each_signal_ends_the_study_with_its_code_and_the_command_that_resumes(
    tmp_path: Path, whole: Undisturbed
) -> None:
    """Two of the six; `test_every_signal_to_either_target_ends_the_study` sends them all.

    How long an end takes on a machine of its own is measured by `make torture`.
    """
    stopped(prepare(tmp_path, **SMALL), [(signal.SIGINT, os.killpg), (signal.SIGTERM, os.kill)], whole)


@pytest.mark.slow
def test_every_signal_to_either_target_ends_the_study(tmp_path: Path, whole: Undisturbed) -> None:
    """Each signal, to the command alone and to its process group."""
    for number in range(0, len(TO_EACH), 2):
        stopped(prepare(tmp_path / str(number), **SMALL), TO_EACH[number : number + 2], whole)


def stopped(place: Sandbox, signals: Sequence[tuple[signal.Signals, Send]], whole: Undisturbed) -> None:
    """One study, stopped by each of these in mid-trial, and then run to its end."""
    for number, (sign, send) in enumerate(signals):
        process = place.start()
        until(place, lines(place) + (9 if number == 0 else 3), process)
        [worker] = workers(process)
        send(process.pid, sign)
        assert process.wait(120) == 128 + sign
        assert not worker.is_running()
        assert left(place) == []
        assert said(place).count(f"Continue with: harness study {NAME}") == number + 1
        assert (place.root / "reports" / NAME / "index.html").exists()
        ends = [ended.state for ended in of_type(place.events(), SessionEnded)]
        assert ends == ["interrupted"] * (number + 1)
    finish(place)
    assert broken_promises(place, whole.numbers) == []


def left(place: Sandbox) -> list[psutil.Process]:
    """What works for this home yet; Python's own tracker of shared resources ends a moment after its parent."""
    end = time.monotonic() + 5
    while (found := place.processes()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    place = prepare(tmp_path, **SMALL)
    process = place.start()
    until(place, 9, process)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    assert not of_type(place.events(), SessionEnded)  # nothing was tidied up


@pytest.mark.parametrize(("seed", "blows"), [(7, 1), pytest.param(1, 5, marks=pytest.mark.slow)])
def test_kills_at_any_moment_lose_nothing(tmp_path: Path, whole: Undisturbed, seed: int, blows: int) -> None:
    """The heart; `make torture` deals fifty kills and more. Seed 7 begins with a kill of the group, in mid-study."""
    tally = Tally()
    inject_faults(prepare(tmp_path, **SMALL), seed=seed, wanted=whole.numbers, tally=tally, most=blows)
    assert tally.broken == []
    assert sum(tally.injected.values()) == blows
    assert tally.trials == len([key for key in whole.numbers if "/" in key])


def test_what_torture_looks_for_is_found(whole: Undisturbed) -> None:
    """The control: a study that lost a trial, or holds another number, does not pass."""
    good = whole.numbers
    assert broken_promises(whole.place, good) == []
    trial = next(key for key in good if key.startswith("fine_tuning/"))
    assert any(trial in fault for fault in broken_promises(whole.place, {**good, trial: ["complete", {}, 0.5, []]}))
    assert any(
        "not in an undisturbed" in fault
        for fault in broken_promises(whole.place, {k: good[k] for k in good if k != trial})
    )
