"""An A/A test with real training: both sides are the same configuration, so every winner is a false one.

The trainings are those of a confirmation: each seed has its own split of the non-test part, initialisation, order and
views, and the model is scored on the test split. The two sides of a comparison have disjoint seeds. There are several
studies, each with its own test split.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from harness.analysis.statistics import compare_strategies
from harness.benchmarks.task import Say, temporary_home
from harness.config.load import LoadedStudy, parse
from harness.config.space import space
from harness.results.metrics import score
from harness.results.names import confirmation_split
from harness.results.records import TrialJob
from harness.seeds import derive
from harness.study.executors.base import Scored, ScoreTask, TrainTask
from harness.study.executors.run_task import configure_torch, run_task
from harness.study.prepare import prepare

STUDIES, RUNS = 10, 60  # number of test splits, and of trainings for each
SEEDS = (2, 3, 5)  # numbers of seeds of a side
EPOCHS = 4


@dataclass(frozen=True)
class Trained:
    """The predictions of one configuration's trainings on one test split."""

    predictions: NDArray[np.int64]  # class indices, (runs, images)
    labels: NDArray[np.int64]
    groups: NDArray[np.str_]


@dataclass(frozen=True)
class AATest:
    """How often two identical sides were judged to differ, with this number of seeds a side."""

    seeds: int
    repeats: int  # number of comparisons
    winners: int  # comparisons with a winner, all of them false
    equal: int
    covered: int  # intervals that contain zero


def train(study: int, runs: int) -> Trained:
    """Train the default head on frozen features `runs` times and predict the test split of this study each time."""
    document = {
        "data": {"source": "rendered_cells", "image_size": 32, "limit": 300, "split": {"seed": study, "test": 0.3}},
        "strategies": ["feature_extraction"],
        "search": {"backbone": "mobilenet_v3_small"},
        "trials": 1,
        "epochs": EPOCHS,
        "seed": study,
        "augmentation": "none",
        "batch_size": 32,
        "confirmation": {"seeds": runs},
        "device": "cpu",
    }
    loaded = LoadedStudy(f"same-{study}", parse(document, "same"), data_replaced=False, path=Path("same.yaml"))
    prepared = prepare(loaded, ["cpu"], lambda *a: None)
    context, device = prepared.context, torch.device("cpu")
    config = space(prepared.study, "feature_extraction").default()
    configure_torch(context)
    sharing, answers = context.worker_cache(), []
    for index in range(runs):
        job = TrialJob(
            f"same/{index}",
            "confirmation",
            "feature_extraction",
            index,
            config,
            derive(study, "confirmation", index),
            confirmation_split(index),
        )
        run_task(TrainTask(job), context, device, lambda record: True, sharing)
        scored = run_task(ScoreTask(job, prepared.test_rows), context, device, lambda record: True, sharing)
        assert isinstance(scored, Scored)
        answers.append(scored.probabilities.argmax(axis=1))
    table = prepared.dataset.table.iloc[prepared.test_rows]
    return Trained(np.array(answers), table["label"].to_numpy(np.int64), table["group"].to_numpy().astype(np.str_))


def judge(trained: Sequence[Trained], seeds: int) -> AATest:
    """Compare disjoint groups of runs, `seeds` on each side, and count the outcomes."""
    outcomes, covered = [], 0
    for study in trained:
        for start in range(0, len(study.predictions) - 2 * seeds + 1, 2 * seeds):
            a, b = np.split(study.predictions[start : start + 2 * seeds], 2)
            found = compare_strategies(a, b, study.labels, study.groups)
            outcomes.append(found.outcome)
            covered += found.ci95[0] <= 0 <= found.ci95[1]
    winners = outcomes.count("better") + outcomes.count("worse")
    return AATest(seeds, len(outcomes), winners, outcomes.count("equal"), covered)


def run(say: Say, folder: Path, studies: int = STUDIES, runs: int = RUNS) -> list[AATest]:
    """Train and judge for each number of seeds; write same.json into `folder`."""
    began = time.perf_counter()
    with TemporaryDirectory() as name, temporary_home(Path(name)):
        trained = [train(study, runs) for study in range(studies)]
    found = [judge(trained, seeds) for seeds in SEEDS]
    scores = [[score("balanced_accuracy", p, t.labels) for p in t.predictions] for t in trained]
    spread = float(np.sqrt(np.mean([np.var(values, ddof=1) for values in scores])))
    seconds = time.perf_counter() - began
    say(f"{studies * runs} trainings of one configuration, balanced accuracy {np.mean(scores):.3f}, in {seconds:.0f} s")
    result = {
        "trainings": studies * runs,
        "test_images": len(trained[0].labels),
        "score": float(np.mean(scores)),
        "deviation_between_seeds": spread,
        "sides": [dataclasses.asdict(one) for one in found],
    }
    (folder / "same.json").write_text(json.dumps(result, indent=1) + "\n")
    return found
