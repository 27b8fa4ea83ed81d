"""A small real study: 3 classes of 32 px colour noise in 12 slides, random mobilenet, a second a trial."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from mlflow import MlflowClient
from PIL import Image

from harness.config.load import LoadedStudy, Overrides, load_study
from harness.results.event_types import TrialFinished
from harness.results.events import E, Event, of_type, read_events
from harness.results.paths import StudyFolder, home
from harness.results.records import EpochRecord, TrialJob, TrialRecord
from harness.study.coordinator import StudyResult, run_study

SLIDES, PER_SLIDE, CLASSES = 12, 9, ("blue", "green", "red")


def draw_images(root: Path) -> Path:
    """108 PNGs in a folder a class, named after their slide."""
    rng = np.random.default_rng(0)
    for slide in range(SLIDES):
        for number in range(PER_SLIDE):
            label = number % 3
            pixels = rng.integers(0, 130, (32, 32, 3))
            pixels[:, :, 2 - label] += 60
            path = root / CLASSES[label] / f"slide{slide:02d}_{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    return root


@dataclass
class Watching:
    """An observer that remembers, and may act."""

    texts: list[str] = field(default_factory=list)
    records: list[TrialRecord] = field(default_factory=list)
    jobs: list[TrialJob] = field(default_factory=list)
    on_epoch: Any = None

    def message(self, text: str) -> None:
        self.texts.append(text)

    def working(self, what: str, done: int, of: int) -> None: ...

    def phase(self, name: str, done: int, total: int) -> None: ...

    def trial_started(self, job: TrialJob) -> None:
        self.jobs.append(job)

    def epoch(self, job: TrialJob, record: EpochRecord) -> None:
        if self.on_epoch is not None:
            self.on_epoch(job, record)

    def trial_finished(self, record: TrialRecord) -> None:
        self.records.append(record)


@dataclass
class World:
    """A home, a studies folder, images, and a way to run."""

    root: Path
    images: Path
    executor: str = "inline"

    def write(self, name: str = "tiny", **changes: Any) -> None:
        document = {
            "data": {"source": {"folder": str(self.images)}, "image_size": 32, "split": {"group": r"slide(\d+)"}},
            "weights": "none",
            "search": {
                "backbone": "mobilenet_v3_small",
                "unfreeze_depth": {"low": 1, "high": 3},
                "head_lr": {"low": 1e-3, "high": 1e-1, "log": True},
                "backbone_lr": {"low": 1e-4, "high": 1e-2, "log": True},
                "batch_size": 16,
            },
            "trials": 2,
            "epochs": 1,
            "confirmation": {"top": 1, "seeds": 2},
            "threads": 1,
            "device": "cpu",
            "executor": self.executor,
        }
        (self.root / "studies").mkdir(exist_ok=True)
        (self.root / "studies" / f"{name}.yaml").write_text(yaml.safe_dump({**document, **changes}))

    def load(self, name: str = "tiny", save_as: str | None = None, **overrides: Any) -> LoadedStudy:
        return load_study(name, Overrides(**overrides), save_as=save_as, studies=self.root / "studies")

    def run(self, name: str = "tiny", watching: Watching | None = None, **options: Any) -> StudyResult:
        return run_study(self.load(name, **options), watching or Watching())

    def folder(self, name: str = "tiny") -> StudyFolder:
        return StudyFolder(name)

    def events(self, name: str = "tiny") -> list[Event]:
        return read_events(StudyFolder(name).events)

    def of(self, wanted: type[E], name: str = "tiny") -> list[E]:
        """What the events of this type hold."""
        return of_type(self.events(name), wanted)


def records(world: World, name: str = "tiny") -> list[TrialRecord]:
    return [ended.record for ended in world.of(TrialFinished, name)]


def runs(name: str, kind: str) -> list[Any]:
    client = MlflowClient(f"sqlite:///{home() / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], f"tags.kind = '{kind}'"))
