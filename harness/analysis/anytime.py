"""The best validation score so far, against trials and device seconds, over random orders of a search's trials.

Only complete trials can be the best. All others (pruned, diverged, failed) cost their slot and their seconds, and count
as the worst score of a complete trial of their strategy, since their own final score is not known.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from harness.analysis.trends import FEWEST
from harness.results.metrics import sign_of
from harness.results.records import TrialRecord
from harness.results.study_state import of_kind

Floats = NDArray[np.float64]

CLOSE = 0.005  # a search within half a point of its best has little left to gain
BAND = (0.1, 0.9)  # quantiles of the random orders
ORDERS = 300  # random orders of the trials; the mean's error is then a 17th of their spread
POINTS = 120  # largest number of points of a curve


@dataclass(frozen=True)
class BestSoFar:
    """The best validation score so far, in the objective's own scale, against what it cost; all arrays (P,)."""

    strategy: str
    cost: Floats  # number of trials, or device seconds of the trials alone
    mean: Floats  # over random orders of the trials
    low: Floats  # ends of the band; `low` is the smaller number for every objective
    high: Floats
    actual: Floats  # in the order in which the trials ended


@dataclass(frozen=True)
class Anytime:
    """One strategy's search, finished or still running."""

    strategy: str
    trials: int  # number that finished, in any state
    near: int  # number of trials after which the expected best is within CLOSE of the best of all
    last: int  # number of trials in the last quarter
    last_gain: float  # their expected gain in random order; 0 or more for every objective
    by_trials: BestSoFar
    by_seconds: BestSoFar | None  # None if no seconds were measured

    @property
    def still_gaining(self) -> bool:
        """Whether the last quarter of the trials is expected to gain more than CLOSE."""
        return self.near > self.trials - self.last


def best_of_draws(values: ArrayLike, draws: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Return mean and BAND quantiles of the largest of n values drawn without replacement, by order statistics.

    The i-th smallest of N is the largest of n with probability C(i - 1, n - 1) / C(N, n).

    Args:
        values: (N,), larger is better.
        draws: (P,) numbers n in 1..N.

    Returns:
        Three arrays (P,). At n = 1 the mean is that of the values, at n = N their maximum.

    After Dodge et al. 2019, "Show your work" (arXiv 1909.03004), in the form of Tang et al. 2020 (2020.acl-main.246),
    which does not draw a trial twice.
    """
    ranked = np.sort(np.asarray(values, np.float64))
    size, n = ranked.size, np.asarray(draws, np.float64)[:, None]
    i = np.arange(1, size + 1, dtype=np.float64)
    # gammaln is +inf for i < n, so these get probability zero.
    of_rank = gammaln(i) - gammaln(n) - gammaln(i - n + 1)
    chance = np.exp(of_rank - (gammaln(size + 1) - gammaln(n + 1) - gammaln(size - n + 1)))
    chance /= chance.sum(axis=1, keepdims=True)
    below = np.cumsum(chance, axis=1)
    low, high = (ranked[(below >= share - 1e-9).argmax(axis=1)] for share in BAND)
    return chance @ ranked, low, high


def best_by_seconds(values: ArrayLike, seconds: ArrayLike, at: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Return mean and BAND quantiles of the best so far at these times, over ORDERS random orders of the trials.

    Args:
        values: (N,), larger is better. Until the first trial of an order has ended, the worst value counts.
        seconds: (N,) seconds that each trial takes.
        at: (P,) seconds since the first trial began. The orders are the same at every call.
    """
    values, seconds, at = (np.asarray(array, np.float64) for array in (values, seconds, at))
    orders = np.random.default_rng(0).random((ORDERS, values.size)).argsort(axis=1)
    found = np.stack([_best_at(values[order], seconds[order], at) for order in orders])
    low, high = np.quantile(found, BAND, axis=0)
    return found.mean(axis=0), low, high


def anytime(records: Sequence[TrialRecord], strategy: str, objective: str) -> Anytime | None:
    """Return what a strategy's search had reached at each cost.

    The expectation treats the trials as exchangeable. A search that learns has its better trials later, so its actual
    curve may lie below the expected one.

    Returns:
        None if fewer than FEWEST trials finished or none is complete.
    """
    own = [record for record in of_kind(records, "search") if record.strategy == strategy]
    sign = sign_of(objective)
    scores = [_score_if_complete(record, sign) for record in own]
    known = [value for value in scores if value is not None]
    if len(own) < FEWEST or not known:
        return None
    worst = min(known)
    values = np.array([worst if value is None else value for value in scores])
    seconds, total = np.array([record.seconds_alone for record in own]), len(own)

    def expected(n: int) -> float:
        return float(best_of_draws(values, [n])[0][0])

    draws = np.unique(np.geomspace(1, total, POINTS).round()) if total > POINTS else np.arange(1.0, total + 1)
    so_far = np.maximum.accumulate(values)[draws.astype(int) - 1]
    by_trials = _in_own_scale(strategy, sign, draws, best_of_draws(values, draws), so_far)
    by_seconds = None
    if seconds.sum() > 0:
        at = np.geomspace(seconds.mean(), seconds.sum(), POINTS)
        by_seconds = _in_own_scale(
            strategy, sign, at, best_by_seconds(values, seconds, at), _best_at(values, seconds, at)
        )
    last = math.ceil(total / 4)
    near = 1 + bisect_left(range(1, total + 1), values.max() - CLOSE - 1e-9, key=expected)
    gain = max(float(values.max()) - expected(total - last), 0.0)
    return Anytime(strategy, total, near, last, gain, by_trials, by_seconds)


def _score_if_complete(record: TrialRecord, sign: int) -> float | None:
    """Return the score of a complete trial, larger is better; None for all others."""
    if record.state != "complete" or record.score is None or not math.isfinite(record.score):
        return None
    return sign * record.score


def _best_at(values: Floats, seconds: Floats, at: Floats) -> Floats:
    """Return the best of the trials that have ended at these times; before the first end, the worst of all."""
    ends = np.cumsum(seconds)
    best = np.concatenate([[values.min()], np.maximum.accumulate(values)])
    ended = np.searchsorted(ends, at * (1 + 1e-9), side="right")  # sums in another order differ in the last bit
    return np.asarray(best[ended], np.float64)


def _in_own_scale(
    strategy: str, sign: int, cost: Floats, expected: tuple[Floats, Floats, Floats], actual: Floats
) -> BestSoFar:
    """Turn the sign back to the objective's own scale."""
    mean, *ends = (sign * values for values in expected)
    low, high = ends if sign > 0 else reversed(ends)
    return BestSoFar(strategy, cost, mean, low, high, sign * actual)
