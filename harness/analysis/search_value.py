"""What the search was worth, in four questions about its winners and trials.

How much better the winners are than their defaults on test; how far the search's scores are above later scores; which
best values lie at an end of their range; and how much pruning saved.
"""

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

NEAR = 0.05  # share of a range's span at each end that counts as its edge


@dataclass(frozen=True)
class DefaultComparison:
    """A strategy's winner against its default on the test split, over the seeds that both have."""

    strategy: str
    default: float  # mean test score
    winner: float  # mean test score
    compared: Comparison | None  # positive favours the winner; None if the default is the winner
    seeds: int


@dataclass(frozen=True)
class Gap:
    """The scores of one winner in the search, in the confirmation and on test."""

    strategy: str
    search: float  # validation score; too high on average, since the winner was chosen by it
    confirmed: float  # mean validation score over the seeds of the confirmation
    test: float  # mean over seeds
    above_confirmation: float  # by how much `search` is better than `confirmed`, for every objective
    above_test: float  # by how much `search` is better than `test`
    is_best: bool  # whether the winner is also the best trial of the search


@dataclass(frozen=True)
class Edge:
    """A value of a best configuration that lies at an end of its searched range."""

    strategy: str
    parameter: str
    value: float
    span: Range
    end: End
    roles: tuple[str, ...]  # whose value it is: "best trial", "confirmed winner" or both


@dataclass(frozen=True)
class Pruned:
    """How much of a strategy's search was stopped early."""

    strategy: str
    trials: int  # number that finished
    pruned: int  # number of them that were pruned
    planned: int  # epochs of all finished trials if none had been pruned
    saved: int  # epochs of these that the pruned trials did not run


@dataclass(frozen=True)
class Pruning:
    """Pruning in every strategy, with a test of whether the strategies were pruned equally often."""

    strategies: tuple[Pruned, ...]
    p_value: float | None  # None with one strategy

    @property
    def saved_share(self) -> float:
        """Share of the planned epochs that pruning saved, in [0, 1]."""
        planned = sum(one.planned for one in self.strategies)
        return sum(one.saved for one in self.strategies) / max(planned, 1)


def compare_with_defaults(
    winners: Mapping[str, TestPredictions], defaults: Mapping[str, TestPredictions], objective: str, equivalence: float
) -> list[DefaultComparison]:
    """Compare each strategy's winner with its default on test, read at Holm's levels over the strategies.

    A strategy is left out if winner and default share fewer than two seeds or were scored on different images.
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
    return [DefaultComparison(name, default, winner, read.get(name), seeds) for name, (default, winner), seeds in made]


def gaps(records: Sequence[TrialRecord], winners: Mapping[str, TestPredictions], objective: str) -> list[Gap]:
    """Return each winner's scores in search, confirmation and test; a winner without a search trial is left out."""
    made, sign = [], sign_of(objective)
    for strategy, winner in winners.items():
        best, config = best_trial(records, strategy, objective), _config(winner)
        trials = [record for record in of_kind(records, "search") if record.config == config]
        scores = [record.score for record in trials if record.state == "complete" and record.score is not None]
        if best is None or not scores or winner.validation_mean is None:
            continue
        test = float(np.mean([score(objective, p, winner.labels) for p in winner.probabilities]))
        above, above_test = (sign * (scores[0] - other) for other in (winner.validation_mean, test))
        made.append(Gap(strategy, scores[0], winner.validation_mean, test, above, above_test, best.config == config))
    return made


def edges(records: Sequence[TrialRecord], winners: Mapping[str, TestPredictions], study: StudyConfig) -> list[Edge]:
    """Return the values of each strategy's best trial and confirmed winner that lie at an end of a searched range.

    An end beyond which the parameter has no values is left out: all stages, no dropout, no layer decay.
    """
    made: dict[tuple[str, str, float], Edge] = {}
    for strategy in study.strategies:
        best, winner = best_trial(records, strategy, study.objective), winners.get(strategy)
        chosen = {"best trial": best.config if best else None, "confirmed winner": _config(winner) if winner else None}
        for role, config in chosen.items():
            for name, span in space(study, strategy).searched().items():
                if config is None or name in idle(config.to_json()):
                    continue
                value = getattr(config, name)
                end = None if value is None else end_of(name, value, span)
                if end:
                    known = made.get((strategy, name, value))
                    roles = (*known.roles, role) if known else (role,)
                    made[strategy, name, value] = Edge(strategy, name, value, span, end, roles)
    return list(made.values())


def end_of(name: str, value: float, span: Range) -> End | None:
    """Return at which end of its range a value lies; None inside the range and at a limit of the parameter itself."""
    end = span.edge(value, NEAR)
    if end is None:
        return None
    low, high = span.ends()
    is_own = low == PARAMETERS[name].low if end == "low" else high == PARAMETERS[name].high
    return None if is_own else end


def pruning(records: Sequence[TrialRecord], strategies: Sequence[str]) -> Pruning | None:
    """Count the trials that were stopped early; None if there is none.

    The p-value is the smallest of Fisher's exact tests over the pairs of strategies, times the number of pairs (the
    first step of Holm's method).
    """
    each_strategy = []
    for strategy in strategies:
        own = [record for record in of_kind(records, "search") if record.strategy == strategy]
        stopped = [record for record in own if record.state == "pruned"]
        planned = sum(record.config.epochs for record in own)
        saved = sum(record.config.epochs - len(record.epochs) for record in stopped)
        if own:
            each_strategy.append(Pruned(strategy, len(own), len(stopped), planned, saved))
    if not any(one.pruned for one in each_strategy):
        return None
    p_values = [
        float(fisher_exact([[a.pruned, a.trials - a.pruned], [b.pruned, b.trials - b.pruned]]).pvalue)
        for a, b in combinations(each_strategy, 2)
    ]
    return Pruning(tuple(each_strategy), min(1.0, min(p_values) * len(p_values)) if p_values else None)


def _config(predictions: TestPredictions) -> TrialConfig | None:
    return predictions.runs[0].config if predictions.runs else None
