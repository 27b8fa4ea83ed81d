"""A study of thousands of heads: its memory and its time a trial stay level, and Ctrl-C still answers at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from harness.benchmarks.fault_injection.sandbox import PATIENCE, prepare, workers

TRIALS = 2000
SETTLED = 500  # trials after which memory must stay level
EVERY = 25  # trials between two looks at the memory
_END = b'"kind":"trial_finished"'


@dataclass(frozen=True)
class Look:
    """At one moment. Megabytes are those that belong to a process alone."""

    trials: int
    seconds: float  # since the first trial ended
    coordinator_mb: float
    workers_mb: float


@dataclass(frozen=True)
class Endurance:
    """What a long study came to."""

    trials: int
    growth_mb: float  # of all its processes over the trials after SETTLED: the most above what they took there
    first_ms: float  # a trial, median over the first quarter after SETTLED
    last_ms: float  # over the last quarter
    stop_seconds: float  # from Ctrl-C to the end
    exit_code: int
    looks: list[Look]

    def faults(self) -> list[str]:
        """Promises that were broken."""
        found = []
        if self.growth_mb > 50:
            found.append(f"memory grew by {self.growth_mb:.0f} MB over the last {self.trials - SETTLED} trials")
        if self.last_ms > 1.25 * self.first_ms:
            found.append(f"a trial took {self.first_ms:.0f} ms at first and {self.last_ms:.0f} at last")
        if self.stop_seconds > 10 or self.exit_code != 130:
            found.append(f"Ctrl-C ended the study after {self.stop_seconds:.1f} s with exit code {self.exit_code}")
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def endure(root: Path, trials: int = TRIALS, settled: int = SETTLED, every: int = EVERY) -> Endurance:
    """Run so many heads on two cores, look at memory and time, and end the study by Ctrl-C before it is done."""
    search = {"backbone": "mobilenet_v3_small", "head_lr": {"low": 1e-4, "high": 1e-1, "log": True}, "batch_size": 16}
    place = prepare(
        root,
        search=search,
        strategies=["feature_extraction"],
        trials=2 * trials,
        controlled={"changes": 0},
        data_sizes=[],
        shifts=[],
        augmentation="none",
    )
    process = place.start()
    looks: list[Look] = []
    began, read, ended = 0.0, 0, 0
    last = time.monotonic()
    while ended < trials:
        assert process.poll() is None, (root / "said.txt").read_text()[-2000:]
        fresh, read = _ended(place.log, read)
        if fresh:
            last = time.monotonic()
            began = began or last
            ended += fresh
            if not looks or ended >= looks[-1].trials + every:
                looks.append(_look(process, ended, last - began))
        assert time.monotonic() - last < PATIENCE, "the study stood still"
        time.sleep(0.02)
    asked = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    code = process.wait(PATIENCE)
    return told(looks, ended, settled, time.monotonic() - asked, code)


def told(looks: list[Look], trials: int, settled: int, stop: float, code: int) -> Endurance:
    """What the looks come to; the first one of `settled` trials or more is what memory is compared with."""
    late = [look for look in looks if look.trials >= settled]
    sizes = [look.coordinator_mb + look.workers_mb for look in late]
    pace = [1000 * (b.seconds - a.seconds) / (b.trials - a.trials) for a, b in pairwise(late)]
    quarter = max(len(pace) // 4, 1)
    return Endurance(
        trials,
        max(sizes) - sizes[0],
        float(np.median(pace[:quarter])),
        float(np.median(pace[-quarter:])),
        stop,
        code,
        looks,
    )


def _ended(log: Path, read: int) -> tuple[int, int]:
    """Trials that ended in the log's lines behind its first `read` bytes, and the bytes of whole lines so far."""
    if not log.exists():
        return 0, 0
    with log.open("rb") as stream:
        stream.seek(read)
        fresh = stream.read()
    whole = fresh[: fresh.rfind(b"\n") + 1]
    return whole.count(_END), read + len(whole)


def _look(process: subprocess.Popen[bytes], trials: int, seconds: float) -> Look:
    own = psutil.Process(process.pid).memory_full_info().uss / 1e6
    theirs = 0.0
    for worker in workers(process):
        with contextlib.suppress(psutil.Error):
            theirs += worker.memory_full_info().uss / 1e6
    return Look(trials, seconds, own, theirs)
