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


def test_a_study_that_is_stopped_and_killed_again_and_again_has_the_numbers_of_an_undisturbed_one(
    tmp_path: Path, whole: Undisturbed
) -> None:
    """One study, since each start of the command takes seconds. `make torture` measures how long an end takes."""
    place = prepare(tmp_path, **SMALL)
    owner = place.start()
    until(place, 6, owner)
    os.kill(owner.pid, signal.SIGSTOP)  # otherwise it might be done before the second one has looked
    second = place.start()
    assert second.wait(120) == 75
    assert f"{NAME} is being run by process {owner.pid}" in said(place)
    written = lines(place)
    os.kill(owner.pid, signal.SIGCONT)
    until(place, written + 2, owner)  # it goes on, as after the sleep of a machine
    os.kill(owner.pid, signal.SIGKILL)  # the owner alone: its lock and its workers go with it
    owner.wait()

    stop(place, [(signal.SIGINT, os.killpg), (signal.SIGTERM, os.kill)])

    ends = len(of_type(place.events(), SessionEnded))
    impatient = place.start()
    until(place, lines(place) + 3, impatient)
    os.killpg(impatient.pid, signal.SIGINT)
    time.sleep(0.05)
    os.killpg(impatient.pid, signal.SIGINT)
    assert impatient.wait(60) == 130
    assert len(of_type(place.events(), SessionEnded)) == ends  # the second signal ends at once; nothing was tidied up

    finish(place)
    assert broken_promises(place, whole.numbers) == []


@pytest.mark.slow
def test_every_signal_to_either_target_ends_the_study(tmp_path: Path, whole: Undisturbed) -> None:
    """Each signal, to the command alone and to its process group."""
    for number in range(0, len(TO_EACH), 2):
        place = prepare(tmp_path / str(number), **SMALL)
        stop(place, TO_EACH[number : number + 2])
        finish(place)
        assert broken_promises(place, whole.numbers) == []


def stop(place: Sandbox, signals: Sequence[tuple[signal.Signals, Send]]) -> None:
    """Start the study once for each of these signals, and send it in the middle of a trial."""
    before = len(of_type(place.events(), SessionEnded)) if place.log.exists() else 0
    for number, (sign, send) in enumerate(signals, 1):
        process = place.start()
        until(place, lines(place) + (3 if place.log.exists() else 9), process)
        [worker] = workers(process)
        send(process.pid, sign)
        assert process.wait(120) == 128 + sign
        assert not worker.is_running()
        assert left(place) == []
        assert said(place).count(f"Continue with: harness study {NAME}") == number
        assert (place.root / "reports" / NAME / "index.html").exists()
        ends = [ended.state for ended in of_type(place.events(), SessionEnded)][before:]
        assert ends == ["interrupted"] * number


def left(place: Sandbox) -> list[psutil.Process]:
    """What works for this home yet; Python's own tracker of shared resources ends a moment after its parent."""
    end = time.monotonic() + 5
    while (found := place.processes()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


@pytest.mark.slow
def test_faults_at_any_moment_lose_nothing(tmp_path: Path, whole: Undisturbed) -> None:
    """Five of them; `make torture` injects fifty kills and more."""
    tally = Tally()
    inject_faults(prepare(tmp_path, **SMALL), seed=1, wanted=whole.numbers, tally=tally, most=5)
    assert tally.broken == []
    assert sum(tally.injected.values()) == 5
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
