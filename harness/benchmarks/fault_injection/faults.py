"""Faults injected into a study at seeded moments until it is finished: kills, signals, suspension, dead children.

After each fault every finished trial must be in the log once and unchanged, and no process of the study may be left.
What must hold at the end is in `checks`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil

from harness.benchmarks.fault_injection.checks import broken_promises
from harness.benchmarks.fault_injection.sandbox import PATIENCE, Sandbox, fork_server, numbers, workers
from harness.results.event_types import TrialFinished, TrialInterrupted
from harness.results.events import of_type

STOP_SECONDS = 10.0  # longest time from a signal to the end of the study
KILLS = ("kill the group", "kill the coordinator")
FAULTS = ("kill a worker", "kill the fork server", "SIGINT", "SIGTERM", "SIGHUP", "sleep")
CHILDREN: dict[str, Callable[[subprocess.Popen[bytes]], psutil.Process | None]] = {
    "kill a worker": lambda process: next(workers(process), None),
    "kill the fork server": fork_server,
}
SLEEP_SECONDS = 2.0


@dataclass
class Tally:
    """Counts of the injected faults and of what they broke."""

    injected: Counter[str] = field(default_factory=Counter)  # number of faults of each kind
    sessions: int = 0
    trials: int = 0  # number that finished
    broken: list[str] = field(default_factory=list)  # broken promises, in words
    slowest_stop: float = 0.0  # longest time from a signal to the end, in seconds

    @property
    def kills(self) -> int:
        """Number of faults that killed the coordinator with SIGKILL."""
        return sum(self.injected[kind] for kind in KILLS)


def inject_faults(sandbox: Sandbox, seed: int, wanted: dict[str, Any], tally: Tally, most: int = 1000) -> None:
    """Run the study to its end while injecting faults at seeded moments; count them and what broke in `tally`.

    Args:
        wanted: `numbers` of an undisturbed study.
        most: number of faults after which the study runs undisturbed.
    """
    rng = np.random.default_rng(seed)
    known: dict[str, Any] = {}
    for session in range(most + 1):
        process = sandbox.start()
        tally.sessions += 1
        if session == most or not _wait(sandbox, process, rng):
            _end_undisturbed(sandbox, process, tally)
            break
        kind = _inject(sandbox, process, rng, tally)
        tally.injected[kind] += 1
        now = {k: v for k, v in numbers(sandbox.events()).items() if k != "verdict"}
        for key, value in known.items():
            if now.get(key) != value:
                tally.broken.append(f"session {session}, {kind}: {key} was lost or changed")
        known = now
    tally.trials += len(of_type(sandbox.events(), TrialFinished))
    tally.broken += broken_promises(sandbox, wanted)


def _wait(sandbox: Sandbox, process: subprocess.Popen[bytes], rng: np.random.Generator) -> bool:
    """Let the session work up to a random moment; return False if it ended before.

    About a third of the moments are during the start, the others come some lines of the log later: a study whose
    sessions all end while they start would never finish.
    """
    early = rng.random() < 0.3
    lines = 10**9 if early else _lines(sandbox) + int(rng.integers(1, 12))
    end = time.monotonic() + (float(rng.uniform(0.05, 8.0)) if early else PATIENCE)
    while process.poll() is None and _lines(sandbox) < lines and time.monotonic() < end:
        time.sleep(0.005)
    time.sleep(float(rng.uniform(0, 0.3)))
    return process.poll() is None


def _lines(sandbox: Sandbox) -> int:
    return sandbox.log.read_bytes().count(b"\n") if sandbox.log.exists() else 0


def _inject(sandbox: Sandbox, process: subprocess.Popen[bytes], rng: np.random.Generator, tally: Tally) -> str:
    """Inject one fault and return its kind. The session is over afterwards."""
    kind = str(rng.choice([*KILLS, *FAULTS], p=[0.35, 0.2, 0.1, 0.1, 0.06, 0.06, 0.06, 0.07]))
    if kind in KILLS:
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if kind == "kill the group" else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
        _all_gone(sandbox, tally, kind)
        return kind
    if kind in CHILDREN:
        victim = CHILDREN[kind](process)
        if victim is None or _has_died(sandbox):
            kind = "SIGTERM"  # there is none, or a running trial has lost a worker: three lost workers fail its slot
        else:
            with contextlib.suppress(psutil.Error):
                victim.kill()
            _wait(sandbox, process, rng)  # it continues with another one for a while
            _end_by(sandbox, process, signal.SIGKILL, tally)
            return kind
    if kind == "sleep":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGSTOP)
            time.sleep(SLEEP_SECONDS)
            os.killpg(process.pid, signal.SIGCONT)
        _wait(sandbox, process, rng)
        _end_by(sandbox, process, signal.SIGKILL, tally)
        return kind
    _end_by(sandbox, process, signal.Signals[kind], tally)
    return kind


def _end_by(sandbox: Sandbox, process: subprocess.Popen[bytes], sign: signal.Signals, tally: Tally) -> None:
    """Send a signal to the process group and check how the session ends."""
    began = time.monotonic()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, sign)
    code = process.wait(PATIENCE)
    took = time.monotonic() - began
    if sign != signal.SIGKILL:
        # -n: the signal came before the command's first line. 0: the study was finished.
        if code not in (128 + sign, -sign, 0):
            tally.broken.append(f"{sign.name} ended the study with exit code {code}: {_last_words(sandbox)}")
        tally.slowest_stop = max(tally.slowest_stop, took)
        if took > STOP_SECONDS:
            tally.broken.append(f"{sign.name} took {took:.1f} s to end the study")
    _all_gone(sandbox, tally, sign.name)


def _last_words(sandbox: Sandbox) -> str:
    """Return the end of what the command printed, in one line."""
    return " | ".join((sandbox.root / "output.txt").read_text(encoding="utf-8").splitlines()[-12:])


def _all_gone(sandbox: Sandbox, tally: Tally, after: str) -> None:
    """Check that no process of the study is left after its coordinator; kill what is left."""
    end = time.monotonic() + 20
    while (left := sandbox.processes()) and time.monotonic() < end:
        time.sleep(0.05)
    for process in left:
        tally.broken.append(f"process {process.pid} was still running after {after}")
        with contextlib.suppress(psutil.Error):
            process.kill()


def _has_died(sandbox: Sandbox) -> bool:
    """Return whether a worker died during a trial that has not finished."""
    events = sandbox.events()
    finished = {ended.record.trial_id for ended in of_type(events, TrialFinished)}
    cut = (one for one in of_type(events, TrialInterrupted) if one.cause == "worker_died")
    return any(one.trial_id not in finished for one in cut)


def _end_undisturbed(sandbox: Sandbox, process: subprocess.Popen[bytes], tally: Tally) -> None:
    code = process.wait(PATIENCE * 4)
    if code != 0:
        tally.broken.append(f"the last session ended with exit code {code}")
    _all_gone(sandbox, tally, "the end")
