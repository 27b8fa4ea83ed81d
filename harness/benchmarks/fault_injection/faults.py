"""Kills, signals, sleep and dead workers, dealt to a study at seeded moments until it is done.

What must hold after each blow: every trial that had finished is there once, as it was, and nothing of the study runs.
What must hold at the end stands in `checks`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil

from harness.benchmarks.fault_injection.checks import broken
from harness.benchmarks.fault_injection.sandbox import PATIENCE, Place, numbers, workers
from harness.results.event_types import TrialFinished, TrialInterrupted, TrialStarted
from harness.results.events import of_type

STOP_SECONDS = 10.0  # within which a signal must have ended the study
KILLS = ("kill the group", "kill the coordinator")
FAULTS = ("kill a worker", "SIGINT", "SIGTERM", "SIGHUP", "sleep")
SLEEP_SECONDS = 2.0


@dataclass
class Tally:
    """What was done to studies, and what that did to them."""

    blows: Counter[str] = field(default_factory=Counter)  # of every kind
    sessions: int = 0
    trials: int = 0  # that finished
    faults: list[str] = field(default_factory=list)  # promises that were broken, in words
    slowest_stop: float = 0.0  # seconds from a signal to the end

    @property
    def kills(self) -> int:
        """Blows that ended the coordinator without a word."""
        return sum(self.blows[kind] for kind in KILLS)


def torture(place: Place, seed: int, wanted: dict[str, Any], tally: Tally, most: int = 1000) -> None:
    """Run the study to its end through blows at seeded moments; notes in `tally` what was done and what broke.

    Args:
        wanted: `numbers` of an undisturbed study.
        most: blows after which the study is left in peace.
    """
    rng = np.random.default_rng(seed)
    dealt = 0
    known: dict[str, Any] = {}
    for session in range(10 * most):
        process = place.start()
        tally.sessions += 1
        if dealt >= most or not _wait(place, process, rng):
            _end_in_peace(place, process, tally)
            break
        kind = _blow(place, process, rng, tally)
        if kind is not None:
            tally.blows[kind] += 1
            dealt += 1
        now = {k: v for k, v in numbers(place.events()).items() if k != "verdict"}
        for key, value in known.items():
            if now.get(key) != value:
                tally.faults.append(f"session {session}, {kind}: {key} was lost or changed")
        known = now
    tally.trials += len(of_type(place.events(), TrialFinished))
    tally.faults += broken(place, wanted)


def _wait(place: Place, process: subprocess.Popen[bytes], rng: np.random.Generator) -> bool:
    """Let the session work up to a moment that is drawn; False where it ended before.

    A third of the moments lie anywhere in the start, the others some lines of the log later: a session that always
    dies while it starts would get nowhere.
    """
    early = rng.random() < 0.3
    lines = 10**9 if early else _lines(place) + int(rng.integers(1, 12))
    end = time.monotonic() + (float(rng.uniform(0.05, 8.0)) if early else PATIENCE)
    while process.poll() is None and _lines(place) < lines and time.monotonic() < end:
        time.sleep(0.005)
    time.sleep(float(rng.uniform(0, 0.3)))
    return process.poll() is None


def _lines(place: Place) -> int:
    return place.log.read_bytes().count(b"\n") if place.log.exists() else 0


def _blow(place: Place, process: subprocess.Popen[bytes], rng: np.random.Generator, tally: Tally) -> str | None:
    """Deal one; returns its kind, None where the study had ended by itself. The session is over afterwards."""
    kind = str(rng.choice([*KILLS, *FAULTS], p=[0.4, 0.2, 0.12, 0.07, 0.07, 0.07, 0.07]))
    if kind in KILLS:
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if kind == "kill the group" else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
        _all_gone(place, tally, kind)
        return kind
    if kind == "kill a worker":
        victim = next(workers(process), None)
        if victim is None or _has_died(place):
            kind = "SIGTERM"  # nobody trains, or the trial that runs has lost a worker before: three fail its slot
        else:
            with contextlib.suppress(psutil.Error):
                victim.kill()
            _wait(place, process, rng)  # it goes on with another worker for a while
            _end_by(place, process, signal.SIGKILL, tally)
            return kind
    if kind == "sleep":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGSTOP)
            time.sleep(SLEEP_SECONDS)
            os.killpg(process.pid, signal.SIGCONT)
        _wait(place, process, rng)
        _end_by(place, process, signal.SIGKILL, tally)
        return kind
    _end_by(place, process, signal.Signals[kind], tally)
    return kind


def _end_by(place: Place, process: subprocess.Popen[bytes], sign: signal.Signals, tally: Tally) -> None:
    """Send a signal to the whole group and see the session end as it should."""
    began = time.monotonic()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, sign)
    code = process.wait(PATIENCE)
    took = time.monotonic() - began
    if sign != signal.SIGKILL:
        # -n: the signal came before the command listened, as for any program. 0: the study was done.
        if code not in (128 + sign, -sign, 0):
            tally.faults.append(f"{sign.name} ended the study with exit code {code}")
        tally.slowest_stop = max(tally.slowest_stop, took)
        if took > STOP_SECONDS:
            tally.faults.append(f"{sign.name} took {took:.1f} s to end the study")
    _all_gone(place, tally, sign.name)


def _all_gone(place: Place, tally: Tally, after: str) -> None:
    """No process of the study outlives its coordinator for more than a moment."""
    end = time.monotonic() + 20
    while (left := place.processes()) and time.monotonic() < end:
        time.sleep(0.05)
    for process in left:
        tally.faults.append(f"after {after} process {process.pid} was left")
        with contextlib.suppress(psutil.Error):
            process.kill()


def _has_died(place: Place) -> bool:
    """Whether a worker died under the trial that was started last."""
    events = place.events()
    last = of_type(events, TrialStarted)[-1].job.trial_id
    return any(cut.trial_id == last and cut.cause == "worker_died" for cut in of_type(events, TrialInterrupted))


def _end_in_peace(place: Place, process: subprocess.Popen[bytes], tally: Tally) -> None:
    code = process.wait(PATIENCE * 4)
    if code != 0:
        tally.faults.append(f"the last session ended with exit code {code}")
    _all_gone(place, tally, "the end")
