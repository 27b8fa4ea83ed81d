"""What both sides of the benchmark train: rendered cells as image files, and a fixed list of configurations.

The harness's side is `run_study` as a user calls it, with fixed configurations (`try:`), from the call to the end of
the search: decoding, the shared pass, training, checks, Optuna, the event log, MLflow beside it.
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
SLIDES, BATCH = 27, 32  # so many slides that `make bench` ends within a quarter of an hour on two slow cores
EPOCHS = 3  # of the strata of a mixed sweep
HEAD_EPOCHS = 10  # of the sweep of heads alone, as many as a study has unless it says otherwise
DEPTHS = (0, 1, 2, 3, 5)
TRIALS = {0: 36, 1: 3, 2: 3, 3: 3, 5: 3}  # what the harness runs of each depth; the plain loop is timed on NAIVE
HEADS = {0: 60}
NAIVE = 3
RECIPES = ("none", "flips")
SEED = 0


@dataclass
class SearchWatcher:
    """Ends a study when its search has, and notes when that was."""

    ended: float | None = None
    texts: list[str] = field(default_factory=list)

    def message(self, text: str) -> None:
        self.texts.append(text)

    def working(self, what: str, done: int, of: int) -> None: ...

    def phase(self, name: str, done: int, total: int) -> None:
        if name == "Confirmation":
            self.ended = time.perf_counter()
            raise Interrupted("the search is all that is timed", 15)

    def trial_started(self, job: TrialJob) -> None: ...

    def epoch(self, job: TrialJob, record: EpochRecord) -> None: ...

    def trial_finished(self, record: TrialRecord) -> None: ...


def searched(loaded: LoadedStudy) -> tuple[list[TrialRecord], float]:
    """Run a study's search from its call to its last trial: the records, and the seconds it took."""
    watcher, started = SearchWatcher(), time.perf_counter()
    with suppress(Interrupted):
        run_study(loaded, watcher)
    assert watcher.ended is not None, watcher.texts
    events = read_events(StudyFolder(loaded.name).events)
    return StudyState.of(events).records, watcher.ended - started


@contextmanager
def homes(folder: Path) -> Iterator[None]:
    """Runs, reports and MLflow of what runs inside lie in `folder`."""
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


def draw(folder: Path) -> None:
    """Write the images, a folder a class."""
    cells = rendered_cells.render(seed=1, slides=SLIDES)
    for number, (image, label) in enumerate(zip(cells.images, cells.labels, strict=True)):
        path = folder / cells.classes[label] / f"slide{number // rendered_cells.PER_SLIDE:02d}_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def config_of(recipe: str, depth: int, index: int = 0, epochs: int = EPOCHS) -> TrialConfig:
    """Trial number `index` of a stratum: the head's rate is what differs."""
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
    """The head's rate of a stratum's trial number `index`."""
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
    """A study whose search is so many trials of each depth, and nothing else; all depths 0, or none of them."""
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
    """The same images and split as files, for the plain loop."""
    context, table = prepared.context, prepared.dataset.table
    train, validation = context.splits[SEARCH_SPLIT]
    paths = tuple(folder / path for path in table["path"])
    return Files(paths, context.labels, context.keys, train, validation, len(context.classes))


def machine() -> str:
    """The machine in words."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{processor()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
        f"{gpu}"
    )
