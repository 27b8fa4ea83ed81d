"""What the search brought: its winners against their defaults on test, what it promised, its edges, its pruning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.stats import fisher_exact

from harness.analysis.statistics import Comparison, difference, holm_levels, judge
from harness.analysis.test_predictions import TestPredictions
from harness.config.parameters import PARAMETERS, idle
from harness.config.ranges import End, Range
from harness.config.space import space
from harness.config.study import StudyConfig
from harness.config.trial import TrialConfig
from harness.results.metrics import score, sign_of
from harness.results.records import TrialRecord
from harness.results.study_state import best_trial, of_kind

NEAR = 0.05  # share of a range's span that counts as its edge


@dataclass(frozen=True)
class Paid:
    """A strategy's winner against its default on the test split, over the seeds that both have."""

    strategy: str
    default: float
    winner: float
    compared: Comparison | None  # positive favours the winner; None where the default is the winner
    seeds: int


@dataclass(frozen=True)
class Gap:
    """What the search said of a winner, what the confirmation says, and what it scored on test."""

    strategy: str
    search: float  # chosen for being good, so flattering
    confirmed: float  # mean validation score over the seeds of the confirmation
    test: float  # mean over seeds
    flattered: float  # by how much the search was better than the confirmation, whichever way is better
    ahead: float  # by how much the search was better than the test
    is_best: bool  # whether the winner was also the best trial of the search


@dataclass(frozen=True)
class Edge:
    """A good configuration's value that lies at an end of its searched range."""

    strategy: str
    parameter: str
    value: float
    span: Range
    end: End
    of: tuple[str, ...]  # "best trial", "confirmed winner": whose value it is


@dataclass(frozen=True)
class Pruned:
    """How much of a strategy's search was stopped early."""

    strategy: str
    trials: int  # finished
    pruned: int
    planned: int  # epochs of all finished trials, had each run to its end
    saved: int  # of these, those the pruned trials did not run


@dataclass(frozen=True)
class Pruning:
    """Pruning in every strategy, and how likely so uneven a share is by chance."""

    sides: tuple[Pruned, ...]
    p_value: float | None  # None with one strategy

    @property
    def saved_share(self) -> float:
        return sum(side.saved for side in self.sides) / max(sum(side.planned for side in self.sides), 1)


def paid(
    winners: Mapping[str, TestPredictions], defaults: Mapping[str, TestPredictions], objective: str, equivalence: float
) -> list[Paid]:
    """Whether each strategy's winner is better than its default on test, read at Holm's levels over the strategies.

    Strategies whose sides share fewer than two seeds, or have other test images, are left out.
    """
    made, estimates = [], {}
    for strategy, winner in winners.items():
        default = defaults.get(strategy)
        seeds = sorted(set(winner.seeds) & set(default.seeds)) if default else []
        if default is None or len(seeds) < 2 or not np.array_equal(winner.rows, default.rows):
            continue
        sides = default.at(seeds), winner.at(seeds)
        means = [float(np.mean([score(objective, p, winner.labels) for p in side])) for side in sides]
        if winner.key != default.key:
            estimates[strategy] = difference(*sides, winner.labels, winner.groups, objective)
        made.append((strategy, means, len(seeds)))
    levels = holm_levels([estimate.p_value for estimate in estimates.values()])
    read = {
        strategy: judge(estimate, equivalence, level)
        for (strategy, estimate), level in zip(estimates.items(), levels, strict=True)
    }
    return [Paid(name, default, winner, read.get(name), seeds) for name, (default, winner), seeds in made]


def gaps(found: Sequence[TrialRecord], winners: Mapping[str, TestPredictions], objective: str) -> list[Gap]:
    """Each winner's score in the search, in the confirmation and on test; those without a trial are left out."""
    made, sign = [], sign_of(objective)
    for strategy, side in winners.items():
        best, config = best_trial(found, strategy, objective), _config(side)
        trials = [record for record in of_kind(found, "search") if record.config == config]
        scores = [record.score for record in trials if record.state == "complete" and record.score is not None]
        if best is None or not scores or side.validation_mean is None:
            continue
        test = float(np.mean([score(objective, p, side.labels) for p in side.probabilities]))
        flattered, ahead = (sign * (scores[0] - other) for other in (side.validation_mean, test))
        made.append(Gap(strategy, scores[0], side.validation_mean, test, flattered, ahead, best.config == config))
    return made


def edges(found: Sequence[TrialRecord], winners: Mapping[str, TestPredictions], study: StudyConfig) -> list[Edge]:
    """Values of each strategy's best trial, and of its confirmed winner, at an end of a searched range.

    An end that no search can pass is natural and not named: every stage, no dropout, no layer decay.
    """
    made: dict[tuple[str, str, float], Edge] = {}
    for strategy in study.strategies:
        best, winner = best_trial(found, strategy, study.objective), winners.get(strategy)
        chosen = {"best trial": best.config if best else None, "confirmed winner": _config(winner) if winner else None}
        for role, config in chosen.items():
            for name, span in space(study, strategy).searched().items():
                if config is None or name in idle(config.to_json()):
                    continue
                value = getattr(config, name)
                end = None if value is None else end_of(name, value, span)
                if end:
                    known = made.get((strategy, name, value))
                    roles = (*known.of, role) if known else (role,)
                    made[strategy, name, value] = Edge(strategy, name, value, span, end, roles)
    return list(made.values())


def end_of(name: str, value: float, span: Range) -> End | None:
    """At which end of its range a value lies; None within, and at an end that is the parameter's own."""
    end = span.edge(value, NEAR)
    if end is None:
        return None
    low, high = span.ends()
    is_own = low == PARAMETERS[name].low if end == "low" else high == PARAMETERS[name].high
    return None if is_own else end


def pruning(found: Sequence[TrialRecord], strategies: Sequence[str]) -> Pruning | None:
    """How many trials were stopped early; None where none was.

    The p-value is the smallest of Fisher's exact tests over the pairs of strategies, times their number (the first
    step of Holm's).
    """
    sides = []
    for strategy in strategies:
        own = [record for record in of_kind(found, "search") if record.strategy == strategy]
        stopped = [record for record in own if record.state == "pruned"]
        planned = sum(record.config.epochs for record in own)
        saved = sum(record.config.epochs - len(record.epochs) for record in stopped)
        if own:
            sides.append(Pruned(strategy, len(own), len(stopped), planned, saved))
    if not any(side.pruned for side in sides):
        return None
    each = [
        float(fisher_exact([[a.pruned, a.trials - a.pruned], [b.pruned, b.trials - b.pruned]]).pvalue)
        for a, b in combinations(sides, 2)
    ]
    return Pruning(tuple(sides), min(1.0, min(each) * len(each)) if each else None)


def _config(side: TestPredictions) -> TrialConfig | None:
    return side.runs[0].config if side.runs else None
