"""What each section of the page found, in a heading: computed from the trials, and plain where nothing was found.

The trials of a search differ in many things at once, so a heading speaks of a trend only where a rank test finds one
(p < 0.05), and never of a cause.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from harness.report import wording
from harness.report.confirmed import Group
from harness.report.scored import TestPredictions
from harness.results.metrics import METRICS, sign_of

FEWEST = 6  # trials below which no trend is spoken of
ALPHA = 0.05


def strategies(rows: Sequence[dict[str, Any]], objective: str) -> str:
    """Who scored what on the test split."""
    known = [row for row in rows if row["test_mean"] is not None]
    if not known:
        return "The strategies so far"
    ranked = sorted(known, key=lambda row: sign_of(objective) * row["test_mean"], reverse=True)
    told = [f"{wording.STRATEGY[row['strategy']]} {wording.level(row['test_mean'], objective)}" for row in ranked]
    return wording.capital(f"{wording.listed(told)} {METRICS[objective].label} on the test split")


def curves(winners: Sequence[TestPredictions]) -> str:
    """Whether the confirmed winners were still getting better when their epochs ended."""
    rising = [
        side.strategy
        for side in winners
        if side.runs and np.mean([run.best_epoch == run.config.epochs for run in side.runs]) > 0.5
    ]
    if rising:
        names = wording.listed(wording.STRATEGY[name] for name in rising)
        was = "was" if len(rising) == 1 else "were"
        return wording.capital(f"{names} {was} still improving at the last epoch")
    if winners:
        return "The winners were best before their last epoch"
    return "Learning curves"


def of_number(trials: pd.DataFrame, column: str, name: str, more: str) -> str:
    """Whether the score follows a parameter of numbers, within a strategy that searched it."""
    return trend(trials, column, more) or _nothing(name, "trend", _tested(trials, column))


def trend(trials: pd.DataFrame, column: str, more: str) -> str | None:
    """How the score follows a parameter of numbers; None where nothing was found."""
    tested = _tested(trials, column)
    for strategy, part in tested:
        rho, p = stats.spearmanr(part[column], _goodness(part))
        if p < ALPHA / len(tested):
            word = "better" if rho > 0 else "worse"
            strength = f"{rho:+.2f}".replace("-", wording.MINUS)
            return f"{more} scored {word} in {wording.STRATEGY[strategy]} (rank correlation {strength})"
    return None


def of_choice(trials: pd.DataFrame, column: str, name: str) -> str:
    """Whether the score differs between the values of a parameter of names, within a strategy that searched it."""
    return choice(trials, column) or _nothing(name, "difference", _tested(trials, column))


def choice(trials: pd.DataFrame, column: str) -> str | None:
    """Which value of a parameter of names scored best; None where no difference was found."""
    objective = str(trials.attrs["objective"])
    sign = sign_of(objective)
    tested = _tested(trials, column)
    for strategy, part in tested:
        samples = {str(value): _goodness(rows).to_numpy() for value, rows in part.groupby(column)}
        if stats.kruskal(*samples.values()).pvalue < ALPHA / len(tested):
            medians = sorted(((float(np.median(sample)), value) for value, sample in samples.items()), reverse=True)
            (best, winner), (worst, loser) = medians[0], medians[-1]
            high, low = wording.level(sign * best, objective), wording.level(sign * worst, objective)
            who = f"In {wording.STRATEGY[strategy]}, {winner} scored best"
            return f"{who}: median {high}, against {low} with {loser}"
    return None


def _nothing(name: str, what: str, tested: list[tuple[str, pd.DataFrame]]) -> str:
    if not tested:
        return wording.capital(name)
    return f"{wording.capital(name)}: no clear {what} in {sum(len(part) for _, part in tested)} trials"


def rates(trials: pd.DataFrame) -> str | None:
    """Where the best quarter of the trials lies; None where there are too few."""
    told = []
    for strategy in wording.STRATEGY:
        part = trials[trials["strategy"] == strategy].dropna(subset=["score"])
        if len(part) < FEWEST:
            continue
        top = part[_goodness(part).rank(ascending=False, method="min") <= max(2, len(part) // 4)]
        head = float(np.exp(np.log(top["head_lr"]).mean()))
        text = f"{wording.STRATEGY[strategy]} near {_rough(head)}"
        if top["backbone_lr"].notna().all():
            text += f" (backbone {_rough(float(np.exp(np.log(top['backbone_lr']).mean())))})"
        told.append(text)
    return f"Best learning rates: {wording.listed(told)}" if told else None


def confusions(counts: NDArray[np.int64], classes: Sequence[str]) -> str:
    """The class most often taken for another one."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(shares, 0)
    row, column = divmod(int(shares.argmax()), shares.shape[1])
    if shares[row, column] == 0:
        return "No class was taken for another"
    share = f"{shares[row, column] * 100:.0f} %"
    return f"Most often confused: {classes[row]}, taken for {classes[column]} in {share} of its images"


def configurations(group: Group, label: str) -> str:
    """Which confirmed configuration scored best, and how many of the others are clearly worse."""
    worse, others = sum(group.clearly_worse), len(group.clearly_worse)
    best = f"{wording.capital(wording.STRATEGY[group.strategy])}, confirmed: {label} scored best on validation"
    if worse == 0:
        return f"{best}, none of the {others} others clearly worse"
    return f"{best}, {worse} of the {others} others clearly worse"


def _tested(trials: pd.DataFrame, column: str) -> list[tuple[str, pd.DataFrame]]:
    """The strategies with trials enough in which the parameter and the score took more than one value.

    Each is tested by itself: over all of them a value that only the better strategy may take would look good.
    """
    parts = [(strategy, trials[trials["strategy"] == strategy]) for strategy in wording.STRATEGY]
    return [
        (strategy, part)
        for strategy, part in parts
        if len(part) >= FEWEST and part[column].nunique() > 1 and part["score"].nunique() > 1
    ]


def _goodness(trials: pd.DataFrame) -> pd.Series[float]:
    """The score, its sign turned where lower is better."""
    return sign_of(str(trials.attrs["objective"])) * trials["score"]


def _rough(value: float) -> str:
    """One significant digit: the place of a good rate is not known better."""
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}".replace("-", wording.MINUS)  # a hyphen would let the line break there
