"""A small real study in a folder of its own, run by the command that users type."""

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

from harness.results.event_types import Explored, TestScored, VerdictReached
from harness.results.events import Event, read_events
from harness.results.study_state import StudyState

NAME = "tortured"
PATIENCE = 300.0  # seconds that a session may go without a new line in its log
SLIDES, PER_SLIDE = 12, 9
_FREE = ("test_looks", "seconds_alone")  # of a verdict


@dataclass(frozen=True)
class Place:
    """Where a study is tortured."""

    root: Path
    name: str = NAME

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def log(self) -> Path:
        return self.home / self.name / "events.jsonl"

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("HARNESS_") and k != "MLFLOW_TRACKING_URI"}
        return kept | {"HARNESS_HOME": str(self.home), "HARNESS_REPORTS": str(self.root / "reports")}

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """The command of a user, leading a process group of its own."""
        with (self.root / "said.txt").open("ab") as said:
            command = [sys.executable, "-m", "harness", *(words or ("study", self.name))]
            return subprocess.Popen(
                command,
                cwd=self.root,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def events(self) -> list[Event]:
        return read_events(self.log)

    def processes(self) -> list[psutil.Process]:
        """Every process that works for this home."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("HARNESS_HOME") == str(self.home) and process.status() != "zombie":
                    found.append(process)
        return found


def prepare(root: Path, **changes: Any) -> Place:
    """Write images and a study file below `root`; `changes` replace keys of the study."""
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
    (root / "studies" / f"{NAME}.yaml").write_text(yaml.safe_dump(study | changes), encoding="utf-8")
    return Place(root)


def undisturbed(place: Place) -> dict[str, Any]:
    """Run the study to its end without a blow; its numbers."""
    process = place.start()
    process.wait(PATIENCE * 4)
    assert process.returncode == 0, (place.root / "said.txt").read_text()[-2000:]
    return numbers(place.events())


def numbers(events: list[Event]) -> dict[str, Any]:
    """All that must not depend on what happened: configurations, losses and scores, of trials and on the test split."""
    found: dict[str, Any] = {}
    for record in StudyState.of(events).records:
        epochs = [(epoch.train_loss, epoch.validation) for epoch in record.epochs]
        found[record.trial_id] = [record.state, record.config.to_json(), record.score, epochs]
    for event in events:
        match event.data:
            case TestScored() as scored:
                name = f"test {scored.strategy} {scored.role} {scored.config_key} {scored.seed_index}"
                found[name] = scored.metrics
            case Explored() as one:
                name = f"{one.what} {one.strategy} {one.config_key} {one.seed_index} {one.shift or one.fraction}"
                found[name] = one.metrics
            case VerdictReached(_, verdict):
                # how often the test split was looked at may differ, and seconds do
                found["verdict"] = {k: v for k, v in (verdict or {}).items() if k not in _FREE}
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def workers(process: subprocess.Popen[bytes]) -> Iterator[psutil.Process]:
    """Workers of a coordinator: the children of its fork server, or spawned ones."""
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                line = " ".join(child.cmdline())
                if "spawn_main" in line or ("forkserver" in line and child.ppid() != process.pid):
                    yield child
