"""What the confirmation scored on the test split: each strategy's winner and default, with their predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.config.trial import STRATEGIES
from harness.results.paths import StudyFolder
from harness.results.records import TrialRecord
from harness.results.study_state import StudyState, config_key, of_kind

Role = Literal["winner", "default"]


@dataclass(frozen=True)
class TestPredictions:
    """The predictions of one configuration on the test split, one model for each seed, and its confirmation runs."""

    __test__ = False  # no test, though pytest would take it for one

    strategy: str
    key: str
    seeds: tuple[int, ...]  # seed indices, ascending; the first axis of `probabilities`
    probabilities: NDArray[np.float32]  # (S, N, C)
    labels: NDArray[np.int64]  # (N,)
    groups: NDArray[np.str_] | None  # (N,); None where each image is its own group
    rows: NDArray[np.int64]  # (N,) row numbers in manifest.csv
    runs: tuple[TrialRecord, ...]  # its complete confirmation runs, by seed index

    @property
    def seconds_alone(self) -> float:
        """Device seconds of one training of this configuration, the mean over its runs."""
        return float(np.mean([run.seconds_alone for run in self.runs])) if self.runs else float("nan")

    @property
    def trainable_share(self) -> float:
        return self.runs[0].trainable_share if self.runs else float("nan")

    @property
    def validation_mean(self) -> float | None:
        """Mean validation score over the runs."""
        scores = [run.score for run in self.runs if run.score is not None]
        return float(np.mean(scores)) if scores else None

    @property
    def config(self) -> dict[str, Any]:
        return self.runs[0].config.to_json() if self.runs else {}

    @property
    def median_run(self) -> TrialRecord | None:
        """The run with the median validation score, the lower of two."""
        ranked = sorted((run for run in self.runs if run.score is not None), key=lambda run: run.score or 0.0)
        return ranked[(len(ranked) - 1) // 2] if ranked else None

    def at(self, seeds: Sequence[int]) -> NDArray[np.float32]:
        """The probabilities of these seed indices, (len(seeds), N, C)."""
        return self.probabilities[[self.seeds.index(seed) for seed in seeds]]

    @property
    def group_count(self) -> int | None:
        """How many groups the test images fall into; None if each image is its own group."""
        return None if self.groups is None else len(np.unique(self.groups))


def scored_predictions(
    state: StudyState, folder: StudyFolder, role: Role, known: Mapping[str, TestPredictions] | None = None
) -> dict[str, TestPredictions]:
    """The winner (or default) of each strategy as of the last look, in the order of STRATEGIES.

    A configuration that was scored in several looks keeps all its seeds, each as scored last. Strategies whose
    prediction files are missing or do not fit together are left out.

    Args:
        known: predictions that were read already, by strategy; the files of the same configuration are not read again.
    """
    result: dict[str, TestPredictions] = {}
    for strategy in STRATEGIES:
        own = [scored for scored in state.test_scores if scored.strategy == strategy]
        chosen = [scored for scored in own if role in scored.role.split("+")]
        if not chosen:
            continue
        last = max(scored.look for scored in chosen)
        key = next(scored.config_key for scored in reversed(chosen) if scored.look == last)
        if known and strategy in known and known[strategy].key == key:
            result[strategy] = known[strategy]
            continue
        files = {scored.seed_index: scored.predictions for scored in own if scored.config_key == key}
        predictions = read_predictions(strategy, key, files, folder, state.records)
        if predictions is not None:
            result[strategy] = predictions
    return result


def read_predictions(
    strategy: str, key: str, files: dict[int, str], folder: StudyFolder, found: Sequence[TrialRecord]
) -> TestPredictions | None:
    """A configuration's answers from its files, one a seed; None where none of them is there."""
    seeds, probabilities = [], []
    labels = groups = rows = None
    for seed, name in sorted(files.items()):
        path = folder.predictions / PurePosixPath(name).name
        if not path.exists():
            continue
        with np.load(path, allow_pickle=False) as stored:
            order = np.argsort(stored["rows"], kind="stable")
            if rows is not None and not np.array_equal(rows, stored["rows"][order]):
                continue  # scored on other images: not the same test split
            rows, labels = stored["rows"][order], stored["labels"][order].astype(np.int64)
            groups = stored["groups"][order].astype(np.str_)
            probabilities.append(stored["probabilities"][order])
            seeds.append(seed)
    if rows is None or labels is None or groups is None:
        return None
    runs = {
        run.slot: run
        for run in of_kind(found, "confirmation")
        if run.strategy == strategy and config_key(run) == key and run.state == "complete"
    }
    alone = len(np.unique(groups)) in (1, labels.size)  # no groups, or a name an image
    return TestPredictions(
        strategy=strategy,
        key=key,
        seeds=tuple(seeds),
        probabilities=np.stack(probabilities),
        labels=labels,
        groups=None if alone else groups,
        rows=rows,
        runs=tuple(runs[slot] for slot in sorted(runs)),
    )
