"""What was tried after the verdict, as values: one changed choice at a time, less data, shifted images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import stdtr, stdtrit

from harness.report.scored import Side, read_side
from harness.report.statistics import Comparison, Estimate, difference, estimate, holm_levels, judge
from harness.report.story import Story
from harness.report.verdict import PRIMARY
from harness.results.event_types import ControlledChange, Explored
from harness.results.metrics import sign_of
from harness.results.study_state import of_kind


@dataclass(frozen=True)
class Changed:
    """A strategy's winner with another value of one parameter, on validation images; positive favours the change."""

    strategy: str
    parameter: str
    before: Any
    value: Any
    differences: tuple[float, ...]  # one a seed, changed minus winner; () where a run did not complete
    mean: float
    ci95: tuple[float, float]
    clear: bool  # its difference is not chance, at Holm's level over the changes of its strategy
    ended: tuple[str, ...]  # the states of its runs

    @property
    def completed(self) -> bool:
        return len(self.differences) > 0


@dataclass(frozen=True)
class Answered:
    """The winners' test scores under one condition: a share of the training images, or a shift."""

    name: str  # of the shift; "" where the images are as they are
    fraction: float
    train_images: dict[str, int]  # strategy -> of its first seed
    scores: dict[str, Estimate]  # strategy -> in the objective's own direction
    pair: Comparison | None  # fine-tuning against feature extraction, read at Holm's level


def changed(story: Story) -> list[Changed]:
    """Every change that was trained around the winners that stand, by strategy, the costliest last."""
    selected = story.state.controlled
    if selected is None:
        return []
    found: list[Changed] = []
    for strategy, entries in selected.configs.items():
        winner = story.winners.get(strategy)
        if winner is not None:
            found += _around(story, winner, entries, selected.seeds)
    return found


def _around(story: Story, winner: Side, entries: Sequence[ControlledChange], seeds: int) -> list[Changed]:
    sign = sign_of(story.study.objective)
    base = {run.slot: run.score for run in winner.runs if run.score is not None}
    trained = [r for r in of_kind(story.records, "controlled") if r.strategy == winner.strategy]
    rows: list[tuple[ControlledChange, list[float], tuple[str, ...]]] = []
    for entry in entries:
        runs = [run for run in trained if run.config == entry.config and run.slot in base]
        if len(runs) < seeds:
            continue  # still at it
        whole = all(run.state == "complete" and run.score is not None for run in runs)
        apart = [sign * ((run.score or 0.0) - (base[run.slot] or 0.0)) for run in runs] if whole else []
        rows.append((entry, apart, tuple(run.state for run in runs)))
    samples = [np.array(apart) for _, apart, _ in rows if apart]
    freedom = sum(len(sample) - 1 for sample in samples)
    # Few seeds tell little of their own spread, so all changes tell it together; never less than a change's own.
    pooled = float(np.sqrt(sum(s.var(ddof=1) * (len(s) - 1) for s in samples) / freedom)) if freedom else 0.0
    made = [_one(winner, entry, apart, ended, pooled, freedom) for entry, apart, ended in rows]
    complete = [index for index, (one, _) in enumerate(made) if one.completed]
    levels = holm_levels([made[index][1] for index in complete])
    clear = {i: made[i][1] < 1 - level for i, level in zip(complete, levels, strict=True)}
    final = [dataclasses.replace(one, clear=clear.get(index, False)) for index, (one, _) in enumerate(made)]
    return sorted(final, key=lambda one: (one.completed, one.mean), reverse=True)


def _one(
    winner: Side, entry: ControlledChange, apart: list[float], ended: tuple[str, ...], pooled: float, freedom: int
) -> tuple[Changed, float]:
    """A change and its p-value."""
    mean, low, high, p = float("nan"), float("nan"), float("nan"), 1.0
    if apart:
        mean = float(np.mean(apart))
        error = max(pooled, float(np.std(apart, ddof=1))) / np.sqrt(len(apart))
        half = float(stdtrit(freedom, 0.975)) * error
        low, high = mean - half, mean + half
        # No spread at all is chance in a coarse score, and no certainty.
        p = float(2 * stdtr(freedom, -abs(mean) / error)) if error > 0 else 1.0
    before = winner.config[entry.parameter]
    return Changed(
        winner.strategy, entry.parameter, before, entry.value, tuple(apart), mean, (low, high), clear=False, ended=ended
    ), p


def sizes(story: Story) -> list[Answered]:
    """The winners on growing shares of the training images, all of them last; [] where no share was tried."""
    data = [entry for entry in _answers(story, "data_size") if entry.fraction in story.study.data_sizes]
    fractions = sorted({entry.fraction for entry in data if entry.fraction is not None})
    parts = [_condition(story, [e for e in data if e.fraction == f], fraction=f) for f in fractions]
    return _read(story, [*parts, _as_judged(story)]) if parts else []


def shifts(story: Story) -> list[Answered]:
    """The winners on the test images as they are, then on each kind of shifted copy; [] where none was asked for."""
    data = [entry for entry in _answers(story, "shift") if entry.shift in story.study.shifts]
    names = [name for name in story.study.shifts if any(entry.shift == name for entry in data)]
    parts = [_condition(story, [e for e in data if e.shift == name], name=name) for name in names]
    return _read(story, [_as_judged(story), *parts]) if parts else []


@dataclass(frozen=True)
class _Condition:
    name: str
    fraction: float
    train_images: dict[str, int]
    sides: dict[str, Side]  # strategies with two seeds or more


def _as_judged(story: Story) -> _Condition:
    """What the verdict rests on."""
    train = int(story.summary["data"]["split"]["train"])
    sides = {name: side for name, side in story.winners.items() if len(side.seeds) > 1}
    return _Condition("", 1.0, dict.fromkeys(sides, train), sides)


def _condition(story: Story, data: Sequence[Explored], name: str = "", fraction: float = 1.0) -> _Condition:
    trained: dict[str, int] = {}
    sides: dict[str, Side] = {}
    for strategy, winner in story.winners.items():
        own = {entry.seed_index: entry for entry in data if entry.strategy == strategy}
        files = {seed: entry.predictions for seed, entry in own.items()}
        side = read_side(strategy, winner.key, files, story.folder, story.records)
        if side is not None and len(side.seeds) > 1:
            sides[strategy] = side
            trained[strategy] = own[side.seeds[0]].train_images or 0
    return _Condition(name, fraction, trained, sides)


def _answers(story: Story, what: Literal["data_size", "shift"]) -> list[Explored]:
    """Of the winners that stand."""
    keys = {side.strategy: side.key for side in story.winners.values()}
    return [one for one in story.state.explored if one.what == what and keys.get(one.strategy) == one.config_key]


def _read(story: Story, conditions: Sequence[_Condition]) -> list[Answered]:
    """Scores and differences; what the verdict did not judge already is read at Holm's levels."""
    objective, zone = story.study.objective, story.study.confirmation.equivalence
    found = {i: apart for i, c in enumerate(conditions) if (apart := _apart(c.sides, objective)) is not None}
    judged = {i for i in found if conditions[i].name == "" and conditions[i].fraction == 1}
    others = [i for i in found if i not in judged]
    levels = dict.fromkeys(judged, 0.95)
    levels |= dict(zip(others, holm_levels([found[i].p_value for i in others]), strict=True))
    return [
        Answered(
            name=c.name,
            fraction=c.fraction,
            train_images=c.train_images,
            scores={
                s: estimate(side.probabilities, side.labels, side.groups, objective) for s, side in c.sides.items()
            },
            pair=judge(found[i], zone, levels[i]) if i in found else None,
        )
        for i, c in enumerate(conditions)
        if c.sides
    ]


def _apart(sides: dict[str, Side], objective: str) -> Estimate | None:
    """Fine-tuning minus feature extraction on their shared seeds; None where that cannot be said."""
    if not all(name in sides for name in PRIMARY):
        return None
    a, b = (sides[name] for name in PRIMARY)
    shared = sorted(set(a.seeds) & set(b.seeds))
    if len(shared) < 2 or not np.array_equal(a.rows, b.rows):
        return None
    return difference(a.at(shared), b.at(shared), a.labels, a.groups, objective)


def as_json(story: Story) -> dict[str, list[dict[str, Any]]]:
    """All of it for summary.json: `controlled`, `data_sizes` and `shifts`; [] where nothing was asked for."""
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
            for one in changed(story)
        ],
        "data_sizes": [{"fraction": p.fraction, "train_images": p.train_images, **_scores(p)} for p in sizes(story)],
        "shifts": [{"shift": point.name or None, **_scores(point)} for point in shifts(story)],
    }


def _scores(point: Answered) -> dict[str, Any]:
    pair = point.pair
    return {
        "test": {s: {"mean": found.mean, "ci95": list(found.interval())} for s, found in point.scores.items()},
        "difference": pair.difference if pair else None,
        "ci95": list(pair.ci95) if pair else None,
        "outcome": pair.outcome if pair else None,  # of fine-tuning
    }
