"""What was tried after the verdict, as values: one choice changed at a time, fewer images, shifted images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import stdtr, stdtrit

from harness.analysis.statistics import Comparison, Estimate, difference, estimate, holm_levels, judge
from harness.analysis.test_predictions import TestPredictions, read_predictions
from harness.analysis.verdict import PRIMARY
from harness.config.study import StudyConfig
from harness.results.event_types import ControlledChange, Explored
from harness.results.metrics import sign_of
from harness.results.paths import StudyFolder
from harness.results.records import TrialRecord
from harness.results.study_state import StudyState, of_kind


@dataclass(frozen=True)
class ChangeResult:
    """A strategy's winner with another value of one parameter, on validation images; positive favours the new value."""

    strategy: str
    parameter: str
    before: Any
    value: Any
    differences: tuple[float, ...]  # changed minus winner at each seed; () if a run did not complete
    mean: float
    ci95: tuple[float, float]
    clear: bool  # whether it is significant, at Holm's level over the changes of its strategy
    ended: tuple[str, ...]  # the states of its runs

    @property
    def completed(self) -> bool:
        """Whether all its runs completed."""
        return len(self.differences) > 0


@dataclass(frozen=True)
class ConditionResult:
    """The winners' test scores under one condition: a share of the training images, or a shift."""

    name: str  # of the shift; "" for unchanged images
    fraction: float  # of the training images, in (0, 1]
    train_images: dict[str, int]  # strategy -> number of training images of its first seed
    scores: dict[str, Estimate]  # strategy -> score in the objective's own direction
    pair: Comparison | None  # fine-tuning against feature extraction, read at Holm's level


def changed(state: StudyState, winners: Mapping[str, TestPredictions], objective: str) -> list[ChangeResult]:
    """Return every change that was trained around the present winners, by strategy, the best change first."""
    selected = state.controlled
    if selected is None:
        return []
    found: list[ChangeResult] = []
    for strategy, entries in selected.configs.items():
        if strategy in winners:
            found += _around(state.records, winners[strategy], objective, entries, selected.seeds)
    return found


def _around(
    records: Sequence[TrialRecord],
    winner: TestPredictions,
    objective: str,
    entries: Sequence[ControlledChange],
    seeds: int,
) -> list[ChangeResult]:
    """Return the changes around one winner. A change whose runs have not all ended is left out."""
    sign = sign_of(objective)
    base = {run.slot: run.score for run in winner.runs if run.score is not None}
    trained = [r for r in of_kind(records, "controlled") if r.strategy == winner.strategy]
    rows: list[tuple[ControlledChange, list[float], tuple[str, ...]]] = []
    for entry in entries:
        runs = [run for run in trained if run.config == entry.config and run.slot in base]
        if len(runs) < seeds:
            continue  # not all its runs have ended
        all_complete = all(run.state == "complete" and run.score is not None for run in runs)
        apart = [sign * ((run.score or 0.0) - (base[run.slot] or 0.0)) for run in runs] if all_complete else []
        rows.append((entry, apart, tuple(run.state for run in runs)))
    samples = [np.array(apart) for _, apart, _ in rows if apart]
    freedom = sum(len(sample) - 1 for sample in samples)
    # A few seeds estimate their spread badly, so it is pooled over all changes, and never less than a change's own.
    pooled = float(np.sqrt(sum(s.var(ddof=1) * (len(s) - 1) for s in samples) / freedom)) if freedom else 0.0
    made = [_change(winner, entry, apart, ended, pooled, freedom) for entry, apart, ended in rows]
    complete = [index for index, (one, _) in enumerate(made) if one.completed]
    levels = holm_levels([made[index][1] for index in complete])
    clear = {i: made[i][1] < 1 - level for i, level in zip(complete, levels, strict=True)}
    final = [dataclasses.replace(one, clear=clear.get(index, False)) for index, (one, _) in enumerate(made)]
    return sorted(final, key=lambda one: (one.completed, one.mean), reverse=True)


def _change(
    winner: TestPredictions,
    entry: ControlledChange,
    apart: list[float],
    ended: tuple[str, ...],
    pooled: float,
    freedom: int,
) -> tuple[ChangeResult, float]:
    """Return one change and its p-value."""
    mean, low, high, p = float("nan"), float("nan"), float("nan"), 1.0
    if apart:
        mean = float(np.mean(apart))
        error = max(pooled, float(np.std(apart, ddof=1))) / np.sqrt(len(apart))
        half = float(stdtrit(freedom, 0.975)) * error
        low, high = mean - half, mean + half
        # A spread of zero is chance in a coarse score, not certainty.
        p = float(2 * stdtr(freedom, -abs(mean) / error)) if error > 0 else 1.0
    before = winner.config[entry.parameter]
    return ChangeResult(
        winner.strategy, entry.parameter, before, entry.value, tuple(apart), mean, (low, high), clear=False, ended=ended
    ), p


def sizes(
    state: StudyState,
    winners: Mapping[str, TestPredictions],
    folder: StudyFolder,
    study: StudyConfig,
    train_images: int,
) -> list[ConditionResult]:
    """Return the winners on growing shares of the training images, all of them last; [] if no share was tried."""
    answers = [entry for entry in _scored(state, winners, "data_size") if entry.fraction in study.data_sizes]
    fractions = sorted({entry.fraction for entry in answers if entry.fraction is not None})
    parts = [
        _condition(state.records, winners, folder, [entry for entry in answers if entry.fraction == f], fraction=f)
        for f in fractions
    ]
    return _results(study, [*parts, _as_judged(winners, train_images)]) if parts else []


def shifts(
    state: StudyState,
    winners: Mapping[str, TestPredictions],
    folder: StudyFolder,
    study: StudyConfig,
    train_images: int,
) -> list[ConditionResult]:
    """Return the winners on the unchanged test images, then on each kind of shifted copy; [] if there is none."""
    answers = [entry for entry in _scored(state, winners, "shift") if entry.shift in study.shifts]
    names = [name for name in study.shifts if any(entry.shift == name for entry in answers)]
    parts = [
        _condition(state.records, winners, folder, [entry for entry in answers if entry.shift == name], name=name)
        for name in names
    ]
    return _results(study, [_as_judged(winners, train_images), *parts]) if parts else []


@dataclass(frozen=True)
class _Condition:
    name: str
    fraction: float
    train_images: dict[str, int]
    predictions: dict[str, TestPredictions]  # strategies with two seeds or more


def _as_judged(winners: Mapping[str, TestPredictions], train_images: int) -> _Condition:
    """Return the condition of the verdict: all training images, unchanged test images."""
    several = {name: winner for name, winner in winners.items() if len(winner.seeds) > 1}
    return _Condition("", 1.0, dict.fromkeys(several, train_images), several)


def _condition(
    records: Sequence[TrialRecord],
    winners: Mapping[str, TestPredictions],
    folder: StudyFolder,
    answers: Sequence[Explored],
    name: str = "",
    fraction: float = 1.0,
) -> _Condition:
    trained: dict[str, int] = {}
    found: dict[str, TestPredictions] = {}
    for strategy, winner in winners.items():
        own = {entry.seed_index: entry for entry in answers if entry.strategy == strategy}
        predictions = read_predictions(strategy, winner.key, own.values(), folder, records)
        if predictions is not None and len(predictions.seeds) > 1:
            found[strategy] = predictions
            trained[strategy] = own[predictions.seeds[0]].train_images or 0
    return _Condition(name, fraction, trained, found)


def _scored(
    state: StudyState, winners: Mapping[str, TestPredictions], what: Literal["data_size", "shift"]
) -> list[Explored]:
    """Return the stored scores of the present winners."""
    keys = {strategy: winner.key for strategy, winner in winners.items()}
    return [one for one in state.explored if one.what == what and keys.get(one.strategy) == one.config_key]


def _results(study: StudyConfig, conditions: Sequence[_Condition]) -> list[ConditionResult]:
    """Compute scores and differences. The verdict's own condition is read at 95 %, the others at Holm's levels."""
    objective, zone = study.objective, study.confirmation.equivalence
    found = {i: apart for i, c in enumerate(conditions) if (apart := _difference(c.predictions, objective)) is not None}
    judged = {i for i in found if conditions[i].name == "" and conditions[i].fraction == 1}
    others = [i for i in found if i not in judged]
    levels = dict.fromkeys(judged, 0.95)
    levels |= dict(zip(others, holm_levels([found[i].p_value for i in others]), strict=True))
    return [
        ConditionResult(
            name=c.name,
            fraction=c.fraction,
            train_images=c.train_images,
            scores={
                s: estimate(side.probabilities, side.labels, side.groups, objective)
                for s, side in c.predictions.items()
            },
            pair=judge(found[i], zone, levels[i]) if i in found else None,
        )
        for i, c in enumerate(conditions)
        if c.predictions
    ]


def _difference(sides: dict[str, TestPredictions], objective: str) -> Estimate | None:
    """Return fine-tuning minus feature extraction on their shared seeds; None if they share fewer than two."""
    if not all(name in sides for name in PRIMARY):
        return None
    a, b = (sides[name] for name in PRIMARY)
    shared = sorted(set(a.seeds) & set(b.seeds))
    if len(shared) < 2 or not np.array_equal(a.rows, b.rows):
        return None
    return difference(a.at(shared), b.at(shared), a.labels, a.groups, objective)


def as_json(
    changed: Sequence[ChangeResult], sizes: Sequence[ConditionResult], shifts: Sequence[ConditionResult]
) -> dict[str, list[dict[str, Any]]]:
    """Return all of it for summary.json: `controlled`, `data_sizes` and `shifts`, each [] if nothing was tried."""
    return {
        "controlled": [
            {
                "strategy": one.strategy,
                "parameter": one.parameter,
                "from": one.before,
                "to": one.value,
                "seeds": len(one.differences),
                "difference": one.mean if one.completed else None,
                "ci95": list(one.ci95) if one.completed else None,
                "clear": one.clear,
            }
            for one in changed
        ],
        "data_sizes": [{"fraction": p.fraction, "train_images": p.train_images, **_scores(p)} for p in sizes],
        "shifts": [{"shift": point.name or None, **_scores(point)} for point in shifts],
    }


def _scores(point: ConditionResult) -> dict[str, Any]:
    pair = point.pair
    return {
        "test": {s: {"mean": found.mean, "ci95": list(found.interval())} for s, found in point.scores.items()},
        "difference": pair.difference if pair else None,
        "ci95": list(pair.ci95) if pair else None,
        "outcome": pair.outcome if pair else None,  # of fine-tuning
    }
