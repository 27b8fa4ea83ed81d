"""A small real study in a folder of its own, run by the same command as a user runs."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from PIL import Image

from harness.results.event_types import Explored, ReferenceScored, TestScored, VerdictReached
from harness.results.events import Event, read_events
from harness.results.study_state import StudyState

NAME = "tortured"  # of the study
PATIENCE = 300.0  # longest time in seconds without a new line in the log
SLIDES, PER_SLIDE = 12, 9
_MAY_DIFFER = ("test_looks", "seconds_alone")  # fields of a verdict


@dataclass(frozen=True)
class Sandbox:
    """The folder and the name of a study into which faults are injected."""

    root: Path
    name: str = NAME

    @property
    def home(self) -> Path:
        """HARNESS_HOME of the study."""
        return self.root / "home"

    @property
    def log(self) -> Path:
        """The event log."""
        return self.home / self.name / "events.jsonl"

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of the command, without those of the surrounding process that concern the harness."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("HARNESS_") and k != "MLFLOW_TRACKING_URI"}
        return kept | {"HARNESS_HOME": str(self.home), "HARNESS_REPORTS": str(self.root / "reports")}

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start the command of a user in a process group of its own; its output is appended to output.txt."""
        with (self.root / "output.txt").open("ab") as output:
            command = [sys.executable, "-m", "harness", *(words or ("study", self.name))]
            return subprocess.Popen(
                command,
                cwd=self.root,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def events(self) -> list[Event]:
        """Read the event log."""
        return read_events(self.log)

    def processes(self) -> list[psutil.Process]:
        """Return every running process with this HARNESS_HOME."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("HARNESS_HOME") == str(self.home) and process.status() != "zombie":
                    found.append(process)
        return found


def prepare(root: Path, **changes: Any) -> Sandbox:
    """Write images and a study file below `root`; `changes` replace keys of the study, None takes one out."""
    rng = np.random.default_rng(0)
    for number in range(SLIDES * PER_SLIDE):
        label = number % 3
        pixels = rng.integers(0, 130, (32, 32, 3))
        pixels[:, :, label] += 60
        path = root / "cells" / ("red", "green", "blue")[label] / f"slide{number // PER_SLIDE:02d}_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    study: dict[str, Any] = {
        "data": {"source": {"folder": str(root / "cells")}, "image_size": 32, "split": {"group": r"slide(\d+)"}},
        "weights": "none",
        "search": {
            "backbone": "mobilenet_v3_small",
            "unfreeze_depth": {"low": 1, "high": 3},
            "head_lr": {"low": 1e-3, "high": 1e-1, "log": True},
            "backbone_lr": {"low": 1e-4, "high": 1e-2, "log": True},
            "batch_size": 16,
        },
        "trials": 4,
        "epochs": 2,
        "confirmation": {"top": 1, "seeds": 2},
        "controlled": {"changes": 1, "seeds": 2},
        "data_sizes": [0.5, 1.0],
        "shifts": ["blur"],
        "threads": 1,
        "device": "cpu",
    }
    (root / "studies").mkdir()
    study = {key: value for key, value in (study | changes).items() if value is not None}
    (root / "studies" / f"{NAME}.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    return Sandbox(root)


def run_undisturbed(sandbox: Sandbox) -> dict[str, Any]:
    """Run the study to its end without any fault, and return its numbers."""
    process = sandbox.start()
    process.wait(PATIENCE * 4)
    assert process.returncode == 0, (sandbox.root / "output.txt").read_text()[-2000:]
    return numbers(sandbox.events())


def numbers(events: list[Event]) -> dict[str, Any]:
    """Return everything that faults must not change: configurations, losses, and scores of trials and on test."""
    found: dict[str, Any] = {}
    for record in StudyState.of(events).records:
        epochs = [(epoch.train_loss, epoch.validation) for epoch in record.epochs]
        found[record.trial_id] = [record.state, record.config.to_json(), record.score, epochs]
    for event in events:
        match event.data:
            case TestScored() as scored:
                name = f"test {scored.strategy} {scored.role} {scored.config_key} {scored.seed_index}"
                found[name] = scored.metrics
            case ReferenceScored() as reference:
                found[f"reference {reference.backbone} {reference.seed_index}"] = reference.metrics
            case Explored() as one:
                name = f"{one.what} {one.strategy} {one.config_key} {one.seed_index} {one.shift or one.fraction}"
                found[name] = one.metrics
            case VerdictReached(_, verdict):
                # a study that was interrupted may score the test split again, and times differ
                found["verdict"] = {k: v for k, v in (verdict or {}).items() if k not in _MAY_DIFFER}
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def workers(process: subprocess.Popen[bytes]) -> Iterator[psutil.Process]:
    """Yield the workers of a coordinator: children of its fork server, or spawned processes."""
    for child, line in _children(process):
        if "spawn_main" in line or ("forkserver" in line and child.ppid() != process.pid):
            yield child


def fork_server(process: subprocess.Popen[bytes]) -> psutil.Process | None:
    """Return the process from which a coordinator forks its workers; None if there is none (yet)."""
    servers = (child for child, line in _children(process) if "forkserver" in line and child.ppid() == process.pid)
    return next(servers, None)


def _children(process: subprocess.Popen[bytes]) -> Iterator[tuple[psutil.Process, str]]:
    """Yield every process below a coordinator and its command line."""
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                yield child, " ".join(child.cmdline())
