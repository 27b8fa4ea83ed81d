"""A study of thousands of heads: memory and time for each trial must not grow, and Ctrl-C must end it quickly."""

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
SETTLED = 500  # number of trials after which memory must not grow
EVERY = 25  # number of trials between two samples of the memory
_END = b'"kind":"trial_finished"'


@dataclass(frozen=True)
class Sample:
    """One sample of the study's memory: megabytes that belong to a process alone (USS)."""

    trials: int
    seconds: float  # since the first trial ended
    coordinator_mb: float
    workers_mb: float


@dataclass(frozen=True)
class Endurance:
    """The result of a long study; stored in torture.json."""

    trials: int
    growth_mb: float  # most memory of all its processes after SETTLED trials, minus the memory at SETTLED trials
    first_ms: float  # time of a trial, median over the first quarter after SETTLED
    last_ms: float  # time of a trial, median over the last quarter
    stop_seconds: float  # from Ctrl-C to the end
    exit_code: int
    looks: list[Sample]

    def faults(self) -> list[str]:
        """Return the promises that were broken, in words."""
        found = []
        if self.growth_mb > 50:
            found.append(f"memory grew by {self.growth_mb:.0f} MB over the last {self.trials - SETTLED} trials")
        if self.last_ms > 1.25 * self.first_ms:
            found.append(f"a trial took {self.first_ms:.0f} ms at first and {self.last_ms:.0f} ms at last")
        if self.stop_seconds > 10 or self.exit_code != 130:
            found.append(f"Ctrl-C ended the study after {self.stop_seconds:.1f} s with exit code {self.exit_code}")
        return found

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def endure(root: Path, trials: int = TRIALS, settled: int = SETTLED, every: int = EVERY) -> Endurance:
    """Run a study until `trials` have ended, sample memory and time every so many trials, and end it by Ctrl-C.

    Args:
        settled: number of trials from which memory is compared.
        every: number of trials between two samples.
    """
    search = {"backbone": "mobilenet_v3_small", "head_lr": {"low": 1e-4, "high": 1e-1, "log": True}, "batch_size": 16}
    sandbox = prepare(
        root,
        search=search,
        strategies=["feature_extraction"],
        trials=2 * trials,
        controlled={"changes": 0},
        data_sizes=[],
        shifts=[],
        augmentation="none",
    )
    process = sandbox.start()
    looks: list[Sample] = []
    began, read, ended = 0.0, 0, 0
    last = time.monotonic()
    while ended < trials:
        assert process.poll() is None, (root / "output.txt").read_text()[-2000:]
        fresh, read = _ended(sandbox.log, read)
        if fresh:
            last = time.monotonic()
            began = began or last
            ended += fresh
            if not looks or ended >= looks[-1].trials + every:
                looks.append(_sample(process, ended, last - began))
        assert time.monotonic() - last < PATIENCE, f"no trial has ended for {PATIENCE:.0f} s"
        time.sleep(0.02)
    asked = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    code = process.wait(PATIENCE)
    return summarise(looks, ended, settled, time.monotonic() - asked, code)


def summarise(looks: list[Sample], trials: int, settled: int, stop: float, code: int) -> Endurance:
    """Compute the result from the samples. Memory is compared with the first sample at `settled` trials or later."""
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
    """Return the number of trials that ended after the first `read` bytes of the log, and the bytes read so far."""
    if not log.exists():
        return 0, 0
    with log.open("rb") as stream:
        stream.seek(read)
        fresh = stream.read()
    complete_lines = fresh[: fresh.rfind(b"\n") + 1]
    return complete_lines.count(_END), read + len(complete_lines)


def _sample(process: subprocess.Popen[bytes], trials: int, seconds: float) -> Sample:
    """Sample the memory of the coordinator and its workers."""
    own = psutil.Process(process.pid).memory_full_info().uss / 1e6
    theirs = 0.0
    for worker in workers(process):
        with contextlib.suppress(psutil.Error):
            theirs += worker.memory_full_info().uss / 1e6
    return Sample(trials, seconds, own, theirs)
