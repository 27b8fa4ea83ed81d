"""What each section of the page found, in a heading: computed from the trials, and plain where nothing was found.

The trials of a search differ in many things at once, so a heading speaks of a trend only where a rank test finds one
(p < 0.05), and never of a cause.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from harness.analysis import wording
from harness.results.metrics import sign_of

FEWEST = 6  # trials below which no trend is spoken of
ALPHA = 0.05


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
