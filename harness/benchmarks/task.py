"""What the harness and the baseline loop train: rendered cells as image files, and a fixed list of configurations.

The harness is timed by `run_study` as a user calls it, with fixed configurations (`try:`), from the call to the end of
the search. That includes decoding, shared work, training, checks, Optuna, the event log and MLflow.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from harness.benchmarks.baseline_loop import Files
from harness.config.load import LoadedStudy, parse
from harness.config.trial import TrialConfig
from harness.data.sources import rendered_cells
from harness.errors import Interrupted
from harness.results.events import read_events
from harness.results.names import SEARCH_SPLIT
from harness.results.paths import StudyFolder
from harness.results.records import EpochRecord, TrialJob, TrialRecord
from harness.results.study_state import StudyState
from harness.study.coordinator import run_study
from harness.study.environment import processor
from harness.study.prepare import Prepared

Say = Callable[[str], None]
SLIDES, BATCH = 27, 32  # so that `make bench` takes about a quarter of an hour on two slow cores
EPOCHS = 3  # of a trial in a mixed sweep
HEAD_EPOCHS = 10  # of a trial in the sweep of heads, as many as the default of a study
DEPTHS = (0, 1, 2, 3, 5)
TRIALS = {0: 36, 1: 3, 2: 3, 3: 3, 5: 3}  # depth -> number of trials that the harness runs
HEADS = {0: 60}
BASELINE_TRIALS = 3  # number of trials of each depth on which the baseline loop is timed
RECIPES = ("none", "flips")
SEED = 0


@dataclass
class SearchWatcher:
    """Progress reporter that ends a study after its search and records the time."""

    ended: float | None = None
    texts: list[str] = field(default_factory=list)

    def message(self, text: str) -> None:
        """Keep a message, for the text of a failed assertion."""
        self.texts.append(text)

    def working(self, what: str, done: int, of: int) -> None: ...

    def phase(self, name: str, done: int, total: int) -> None:
        """End the study when the confirmation begins."""
        if name == "Confirmation":
            self.ended = time.perf_counter()
            raise Interrupted("only the search is timed", 15)

    def trial_started(self, job: TrialJob) -> None: ...

    def epoch(self, job: TrialJob, record: EpochRecord) -> None: ...

    def trial_finished(self, record: TrialRecord) -> None: ...


def run_search(loaded: LoadedStudy) -> tuple[list[TrialRecord], float]:
    """Run a study up to the end of its search; return the records and the seconds it took."""
    watcher, started = SearchWatcher(), time.perf_counter()
    with suppress(Interrupted):
        run_study(loaded, watcher)
    assert watcher.ended is not None, watcher.texts
    events = read_events(StudyFolder(loaded.name).events)
    return StudyState.of(events).records, watcher.ended - started


@contextmanager
def temporary_home(folder: Path) -> Iterator[None]:
    """Set the environment so that runs, reports and MLflow's store of everything inside are in `folder`."""
    before = {name: os.environ.get(name) for name in ("HARNESS_HOME", "HARNESS_REPORTS", "MLFLOW_TRACKING_URI")}
    os.environ |= {"HARNESS_HOME": str(folder / "runs"), "HARNESS_REPORTS": str(folder / "reports")}
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def write_images(folder: Path) -> None:
    """Write the rendered images below `folder`, with a folder for each class."""
    cells = rendered_cells.render(seed=1, slides=SLIDES)
    for number, (image, label) in enumerate(zip(cells.images, cells.labels, strict=True)):
        path = folder / cells.classes[label] / f"slide{number // rendered_cells.PER_SLIDE:02d}_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def config_of(recipe: str, depth: int, index: int = 0, epochs: int = EPOCHS) -> TrialConfig:
    """Return the configuration of trial `index` of a stratum; trials of a stratum differ in the head's rate."""
    return TrialConfig(
        "fine_tuning" if depth else "feature_extraction",
        "resnet18",
        depth,
        rate_of(index),
        1e-4 if depth else None,
        batchnorm="fixed_stats" if depth else "frozen",
        augmentation=recipe,  # type: ignore[arg-type]
        batch_size=BATCH,
        epochs=epochs,
    )


def rate_of(index: int) -> float:
    """Return the head's learning rate of trial `index` of a stratum."""
    return round(1e-3 * 1.05**index, 9)


def study_of(
    folder: Path,
    recipe: str,
    precision: str,
    trials: Mapping[int, int],
    device: str,
    *,
    epochs: int = EPOCHS,
    name: str = "sweep",
) -> LoadedStudy:
    """Return a study whose search has exactly these trials.

    Args:
        folder: contains the folder `images`.
        trials: depth -> number of trials; either depth 0 alone or only other depths.
    """
    depths = tuple(trials)
    strategy = "fine_tuning" if depths[0] else "feature_extraction"
    rates = {"low": 1e-3, "high": 1e-1, "log": True}
    tried = [
        {"strategy": strategy, "head_lr": rate_of(index)} | ({"unfreeze_depth": depth} if depth else {})
        for depth in depths
        for index in range(trials[depth])
    ]
    document: dict[str, Any] = {
        "data": {"source": {"folder": str(folder / "images")}, "split": {"group": r"slide(\d+)"}},
        "strategies": [strategy],
        "augmentation": recipe,
        "batch_size": BATCH,
        "epochs": epochs,
        "pruning": False,
        "search": {"head_lr": rates} | ({"unfreeze_depth": list(depths), "backbone_lr": 1e-4} if depths[0] else {}),
        "try": tried,
        "trials": len(tried),
        "confirmation": {"seeds": 2},
        "device": device,
        "precision": precision,
        "seed": SEED,
    }
    name = f"{name}-{recipe}-{precision}-{strategy.replace('_', '-')}"
    return LoadedStudy(name, parse(document, name), data_replaced=False, path=folder / f"{name}.yaml")


def files_of(prepared: Prepared, folder: Path) -> Files:
    """Return the same images and split as files, for the baseline loop."""
    context, table = prepared.context, prepared.dataset.table
    train, validation = context.splits[SEARCH_SPLIT]
    paths = tuple(folder / path for path in table["path"])
    return Files(paths, context.labels, context.keys, train, validation, len(context.classes))


def machine() -> str:
    """Describe the machine in words."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{processor()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
        f"{gpu}"
    )
