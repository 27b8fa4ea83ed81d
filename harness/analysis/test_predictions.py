"""The stored predictions on the test split, of each strategy's winner and default.

A file of predictions counts only if it gives the metrics that the log holds for it: a file that was damaged, or that
belongs to another model, could otherwise turn the verdict round.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.config.trial import STRATEGIES
from harness.results.compressed import read_arrays
from harness.results.event_types import Explored, TestScored
from harness.results.metrics import METRICS, all_metrics
from harness.results.paths import StudyFolder
from harness.results.records import TrialRecord
from harness.results.study_state import StudyState, config_key, of_kind

Role = Literal["winner", "default"]
ScoreEvent = TestScored | Explored
SAME = (
    1e-6  # largest difference between a metric of a file and the log's: other machines round the last digits otherwise
)
_MOST_PROBABILITIES = 1 << 27  # of one file that holds class indices: 512 MB


@dataclass(frozen=True)
class TestPredictions:
    """The predictions of one configuration on the test split, from one model for each seed."""

    __test__ = False  # pytest would collect it as a test because of its name

    strategy: str
    key: str  # of the configuration, see `study_state.config_key`
    seeds: tuple[int, ...]  # seed indices, ascending; the first axis of `probabilities`
    probabilities: NDArray[np.float32]  # (S, N, C)
    labels: NDArray[np.int64]  # (N,)
    groups: NDArray[np.str_] | None  # (N,); None if each image is its own group
    rows: NDArray[np.int64]  # (N,) row numbers in manifest.csv
    runs: tuple[TrialRecord, ...]  # the configuration's complete confirmation runs, by seed index

    @property
    def seconds_alone(self) -> float:
        """Device seconds of one training of this configuration: the mean over its runs, NaN without runs."""
        return float(np.mean([run.seconds_alone for run in self.runs])) if self.runs else float("nan")

    @property
    def trainable_share(self) -> float:
        """Share of the parameters that train, in [0, 1]; NaN without runs."""
        return self.runs[0].trainable_share if self.runs else float("nan")

    @property
    def validation_mean(self) -> float | None:
        """Mean validation score over the runs; None without runs."""
        scores = [run.score for run in self.runs if run.score is not None]
        return float(np.mean(scores)) if scores else None

    @property
    def config(self) -> dict[str, Any]:
        """The configuration as in the log; {} without runs."""
        return self.runs[0].config.to_json() if self.runs else {}

    @property
    def median_run(self) -> TrialRecord | None:
        """The run with the median validation score; of an even number, the lower of the middle two."""
        ranked = sorted((run for run in self.runs if run.score is not None), key=lambda run: run.score or 0.0)
        return ranked[(len(ranked) - 1) // 2] if ranked else None

    def at(self, seeds: Sequence[int]) -> NDArray[np.float32]:
        """Return the probabilities of these seed indices, (len(seeds), N, C)."""
        return self.probabilities[[self.seeds.index(seed) for seed in seeds]]

    @property
    def group_count(self) -> int | None:
        """Number of groups of the test images; None if each image is its own group."""
        return None if self.groups is None else len(np.unique(self.groups))


@dataclass(frozen=True)
class StoredPredictions:
    """What one file of predictions holds: the answers of one model."""

    probabilities: NDArray[np.float32]  # (N, C)
    labels: NDArray[np.int64]  # (N,)
    groups: NDArray[np.str_]  # (N,)
    rows: NDArray[np.int64]  # (N,) row numbers in manifest.csv, ascending


def read_file(folder: StudyFolder, event: ScoreEvent) -> StoredPredictions | str:
    """Read the predictions that an event of the log names, or say what is wrong with the file.

    It is wrong if it is missing, cannot be read, or does not give the metrics of the event.
    """
    path = folder.predictions / PurePosixPath(event.predictions).name
    if not path.exists():
        return "it is gone"
    try:
        stored = read_arrays(path)
        order = np.argsort(stored["rows"], kind="stable")
        only_classes = "answers" in stored
        probabilities = _certain(stored["answers"], stored["classes"]) if only_classes else stored["probabilities"]
        found = StoredPredictions(
            probabilities=probabilities[order],
            labels=stored["labels"][order].astype(np.int64),
            groups=stored["groups"][order].astype(np.str_),
            rows=stored["rows"][order],
        )
        metrics = all_metrics(found.probabilities, found.labels)
        if only_classes:
            metrics = {name: value for name, value in metrics.items() if not METRICS[name].needs_probabilities}
    except Exception:  # arrays of other shapes and types raise errors of numpy
        return "it cannot be read"
    if not same_metrics(metrics, event.metrics):
        return "it does not give the metrics that the log holds for this model"
    return found


def _certain(answers: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.float32]:
    """Return probabilities (N, C) of 1 for the answered class, from a packed study's file of class indices (N,).

    Raises:
        ValueError: they would take more memory than any study's predictions.
    """
    if len(answers) * int(classes) > _MOST_PROBABILITIES:
        raise ValueError(f"{len(answers)} images of {int(classes)} classes")
    probabilities = np.zeros((len(answers), int(classes)), np.float32)
    probabilities[np.arange(len(answers)), answers] = 1
    return probabilities


def same_metrics(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether two results of `metrics.all_metrics` are equal up to SAME, in the metrics that both hold."""
    common = one.keys() & other.keys()  # a version that knows one more metric reads the logs of an older one
    return bool(common) and all(math.isclose(one[name], other[name], rel_tol=0, abs_tol=SAME) for name in common)


def lost_predictions(state: StudyState, folder: StudyFolder) -> dict[str, tuple[ScoreEvent, str]]:
    """Return the files of predictions that the log names and that `read_file` does not accept.

    Returns:
        name of the file -> the last event that names it, and what is wrong with the file.
    """
    scored: list[ScoreEvent] = [*state.test_scores, *state.explored]
    last = {PurePosixPath(event.predictions).name: event for event in scored}
    read = {name: (event, read_file(folder, event)) for name, event in last.items()}
    return {name: (event, found) for name, (event, found) in read.items() if isinstance(found, str)}


def scored_predictions(
    state: StudyState, folder: StudyFolder, role: Role, known: Mapping[str, TestPredictions] | None = None
) -> dict[str, TestPredictions]:
    """Return the winner (or default) of each strategy at the last time it was scored, in the order of STRATEGIES.

    A configuration that was scored several times has all its seeds, each as it was scored last. A strategy is left out
    if its prediction files are missing or belong to different test images.

    Args:
        role: which of the two to return.
        known: predictions already read, by strategy; the files of the same configuration are not read again.
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
        events = [scored for scored in own if scored.config_key == key]
        predictions = read_predictions(strategy, key, events, folder, state.records)
        if predictions is not None:
            result[strategy] = predictions
    return result


def read_predictions(
    strategy: str, key: str, events: Iterable[ScoreEvent], folder: StudyFolder, records: Sequence[TrialRecord]
) -> TestPredictions | None:
    """Read the predictions of one configuration; None if no file of them can be used, see `read_file`.

    Args:
        events: of the configuration; the last one of each seed counts.
        records: of all trials; the complete confirmation runs of the configuration are taken from them.
    """
    seeds, probabilities = [], []
    labels = groups = rows = None
    by_seed = {event.seed_index: event for event in events}
    for seed, event in sorted(by_seed.items()):
        stored = read_file(folder, event)
        if isinstance(stored, str) or (rows is not None and not np.array_equal(rows, stored.rows)):
            continue  # unusable, or scored on other images, so that it belongs to another test split
        rows, labels, groups = stored.rows, stored.labels, stored.groups
        probabilities.append(stored.probabilities)
        seeds.append(seed)
    if rows is None or labels is None or groups is None:
        return None
    runs = {
        run.slot: run
        for run in of_kind(records, "confirmation")
        if run.strategy == strategy and config_key(run) == key and run.state == "complete"
    }
    no_groups = len(np.unique(groups)) in (1, labels.size)  # one name for all images, or a name for each
    return TestPredictions(
        strategy=strategy,
        key=key,
        seeds=tuple(seeds),
        probabilities=np.stack(probabilities),
        labels=labels,
        groups=None if no_groups else groups,
        rows=rows,
        runs=tuple(runs[slot] for slot in sorted(runs)),
    )
