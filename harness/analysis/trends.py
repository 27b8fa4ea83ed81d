"""How the score of the search trials depends on one parameter, in the words of a section's heading.

The trials of a search differ in many parameters at once. So a heading names a trend only if a rank test finds one
(p < 0.05), and it never names a cause.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from harness.analysis import wording
from harness.results.metrics import sign_of

FEWEST = 6  # trials; with fewer no trend is tested
ALPHA = 0.05  # divided by the number of strategies tested, after Bonferroni


def of_number(trials: pd.DataFrame, column: str, name: str, more: str) -> str:
    """Return a heading that says whether the score follows a numeric parameter within a strategy.

    Args:
        trials: the complete trials, see `StudyData.complete`.
        column: the parameter.
        name: the parameter in words.
        more: what a larger value is, as the subject of a sentence: `Deeper unfreezing`.
    """
    return trend(trials, column, more) or _nothing(name, "trend", _tested(trials, column))


def trend(trials: pd.DataFrame, column: str, more: str) -> str | None:
    """Return how the score follows a numeric parameter; None if no trend was found. Arguments as in `of_number`."""
    tested = _tested(trials, column)
    for strategy, part in tested:
        rho, p = stats.spearmanr(part[column], goodness(part))
        if p < ALPHA / len(tested):
            word = "better" if rho > 0 else "worse"
            strength = f"{rho:+.2f}".replace("-", wording.MINUS)
            return f"{more} scored {word} in {wording.STRATEGY[strategy]} (rank correlation {strength})"
    return None


def of_choice(trials: pd.DataFrame, column: str, name: str) -> str:
    """Return a heading that says whether the score differs between the values of a categorical parameter."""
    return choice(trials, column) or _nothing(name, "difference", _tested(trials, column))


def choice(trials: pd.DataFrame, column: str) -> str | None:
    """Return which value of a categorical parameter scored best; None if no difference was found."""
    objective = str(trials.attrs["objective"])
    sign = sign_of(objective)
    tested = _tested(trials, column)
    for strategy, part in tested:
        samples = {str(value): goodness(rows).to_numpy() for value, rows in part.groupby(column)}
        if stats.kruskal(*samples.values()).pvalue < ALPHA / len(tested):
            medians = sorted(((float(np.median(sample)), value) for value, sample in samples.items()), reverse=True)
            (best, winner), (worst, loser) = medians[0], medians[-1]
            high, low = wording.level(sign * best, objective), wording.level(sign * worst, objective)
            who = f"In {wording.STRATEGY[strategy]}, {winner} scored best"
            return f"{who}: median {high}, against {low} with {loser}"
    return None


def _nothing(name: str, what: str, tested: list[tuple[str, pd.DataFrame]]) -> str:
    """Say that nothing was found, or only name the parameter if nothing could be tested."""
    if not tested:
        return wording.capital(name)
    return f"{wording.capital(name)}: no clear {what} in {sum(len(part) for _, part in tested)} trials"


def _tested(trials: pd.DataFrame, column: str) -> list[tuple[str, pd.DataFrame]]:
    """Return the strategies with enough trials in which the parameter and the score took more than one value.

    Each strategy is tested by itself: over all trials, a value that only the better strategy may take would look good.
    """
    parts = [(strategy, trials[trials["strategy"] == strategy]) for strategy in wording.STRATEGY]
    return [
        (strategy, part)
        for strategy, part in parts
        if len(part) >= FEWEST and part[column].nunique() > 1 and part["score"].nunique() > 1
    ]


def goodness(trials: pd.DataFrame) -> pd.Series[float]:
    """Return the score, with its sign turned if lower is better."""
    return sign_of(str(trials.attrs["objective"])) * trials["score"]
