"""Time, memory and size of the report of an artificial study with 10,000 trials."""

from __future__ import annotations

import dataclasses
import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.config.parameters import default_values
from harness.config.study import StudyConfig
from harness.config.trial import STRATEGIES, TrialConfig
from harness.report import style
from harness.results.event_types import (
    EpochDone,
    SessionEnded,
    SessionStarted,
    StudyCreated,
    TrialFinished,
    TrialStarted,
)
from harness.results.events import EventLog
from harness.results.metrics import METRICS
from harness.results.paths import StudyFolder
from harness.results.records import EpochRecord, TrialJob, TrialRecord
from harness.results.trial_id import TrialId

NAME = "ten-thousand"
BACKBONES = ("resnet18", "resnet50", "efficientnet_b0", "mobilenet_v3_small")
POLICIES = ("frozen", "fixed_stats", "updated_stats", "recalibrated")


def measure_report(trials: int = 10_000, epochs: int = 10) -> dict[str, float]:
    """Write an artificial study under HARNESS_HOME and make its report in a process of its own.

    Returns:
        `seconds` of `write_report`; `figures_seconds` of them for all figures; `slowest_figure_seconds`; `megabytes`,
        the size of the page; `memory_mb`, the peak memory of the process, imports included.
    """
    folder = write_study(trials, epochs)
    done = subprocess.run(
        [sys.executable, "-m", "harness.benchmarks.report_size", folder.name],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def write_study(trials: int, epochs: int) -> StudyFolder:
    """Write a study folder with half of the trials in each strategy and no confirmation."""
    rng = np.random.default_rng(0)
    search = {"backbone": list(BACKBONES), "unfreeze_depth": {"low": 1, "high": 5}, "batchnorm": list(POLICIES)}
    config = StudyConfig.model_validate({"search": search, "trials": trials // 2, "epochs": epochs})
    folder = StudyFolder(NAME)
    folder.events.parent.mkdir(parents=True, exist_ok=True)
    study = config.model_dump(mode="json", by_alias=True)
    folder.study_json.write_text(json.dumps({"study": study, "name": NAME, "fingerprint": {}}), encoding="utf-8")
    folder.data_card.write_text(json.dumps(CARD), encoding="utf-8")
    log = EventLog(folder.events)
    log.append(StudyCreated(study, fingerprint={}), sync=False)
    log.append(SessionStarted(environment={}, resumed=False), sync=False)
    for number in range(trials):
        record = _record(rng, STRATEGIES[number % 2], number // 2, epochs)
        _log(log, record, config.objective)
    log.append(SessionEnded("finished", seconds=1.0))
    log.close()
    return folder


def _log(log: EventLog, record: TrialRecord, objective: str) -> None:
    """Append what a session writes for a trial: its start, the score of each epoch, and its record."""
    log.append(TrialStarted(record.job, redraw=0, params={}), sync=False)
    for epoch in record.epochs:
        score = epoch.validation[objective]
        log.append(EpochDone(record.trial_id, record.attempt, epoch.epoch, score), sync=False)
    log.append(TrialFinished(record), sync=False)


def _record(rng: np.random.Generator, strategy: Any, slot: int, epochs: int) -> TrialRecord:
    """Return a trial with a random configuration, state and learning curve."""
    depth = int(rng.integers(1, 6)) if strategy == "fine_tuning" else 0
    config = TrialConfig(strategy=strategy, epochs=epochs, **default_values(strategy))
    config = dataclasses.replace(
        config,
        backbone=str(rng.choice(BACKBONES)),
        unfreeze_depth=depth,
        head_lr=float(10 ** rng.uniform(-4, -1)),
        backbone_lr=float(10 ** rng.uniform(-6, -2)) if depth else None,
        batchnorm=str(rng.choice(POLICIES)) if depth else "frozen",  # type: ignore[arg-type]
    )
    reached = rng.beta(8, 4) * (1 - 0.6 * np.exp(-np.arange(1, epochs + 1) / 2))
    state: Any = rng.choice(["complete", "pruned", "diverged"], p=[0.6, 0.39, 0.01])
    epoch_records = tuple(
        EpochRecord(
            epoch + 1,
            float(1.8 * np.exp(-epoch / 5)),
            {"loss": float(1.5 - score), **dict.fromkeys(METRICS, score)},
            config.head_lr,
            config.backbone_lr,
            1.0,
        )
        for epoch, score in enumerate(reached.tolist()[: epochs if state == "complete" else 3])
    )
    scored = state != "diverged"
    return TrialRecord(
        job=TrialJob(str(TrialId("search", strategy, slot)), "search", strategy, slot, config, 0, "search"),
        state=state,
        reason=None if state == "complete" else f"{state} after epoch 3",
        epochs=epoch_records,
        best_epoch=len(epoch_records) if scored else None,
        score=epoch_records[-1].validation["accuracy"] if scored else None,
        seconds_alone=2.0 + 2 * depth + float(rng.random()),
        trainable_parameters=3000 * 10**depth,
        total_parameters=11_000_000,
        device="cpu",
        started_at="2026-01-01T00:00:00+00:00",
        batchnorm_layers=20,
    )


CARD = {
    "name": "made up",
    "source": "rendered_cells",
    "rendered": True,
    "images": 1000,
    "classes": [{"name": name, "count": 500, "train": 300, "validation": 100, "test": 100} for name in "ab"],
    "groups": None,
    "group_rule": None,
    "digest": "0" * 12,
    "sizes": [{"width": 64, "height": 64, "count": 1000}],
    "kinds": {"PNG, 8-bit RGB": 1000},
    "left_aside": [],
    "split_from": "drawn",
    "skipped": [],
    "converted": {},
    "duplicates": 0,
    "image_size": 64,
    "resize": "stretch",
    "bit_depth": "dtype",
    "split": {"train": 600, "validation": 200, "test": 200, "unused": 0},
    "split_groups": {},
    "notes": [],
}


def _main(name: str) -> None:
    """Make the report of a study and print the measurements as JSON."""
    figures = _figures_timed()
    from harness.report.page import write_report  # only now: its modules import `style.drawing` by name

    started = time.perf_counter()
    page = write_report(StudyFolder(name))
    found = {
        "seconds": time.perf_counter() - started,
        "figures_seconds": sum(figures),
        "slowest_figure_seconds": max(figures),
        "megabytes": page.stat().st_size / 1e6,
        "memory_mb": _peak_memory() / 1e6,
    }
    sys.stdout.write(json.dumps(found))


def _figures_timed() -> list[float]:
    """Replace `style.drawing` by a timed version; return the list to which it adds the seconds of every figure."""
    seconds: list[float] = []
    drawing = style.drawing

    @contextmanager
    def timed(width: int, height: int) -> Iterator[tuple[Figure, Axes]]:
        started = time.perf_counter()
        with drawing(width, height) as drawn:
            yield drawn
        seconds.append(time.perf_counter() - started)

    style.drawing = timed
    return seconds


def _peak_memory() -> float:
    """Return the peak memory of this process in bytes.

    On Linux it is not `ru_maxrss`, which is at least the memory of the parent when it forked.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return 1024.0 * float(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else peak * 1024)


if __name__ == "__main__":
    _main(sys.argv[1])
