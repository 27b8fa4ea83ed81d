"""The section on learning curves: validation score by epoch, of the search trials and of the confirmed winners."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator

from harness.analysis import wording
from harness.analysis.study_data import StudyData
from harness.analysis.test_predictions import TestPredictions
from harness.analysis.training_end import still_rising
from harness.report import style
from harness.report.axes import score_axis
from harness.report.section import Section
from harness.report.style import Picture, drawing, picture
from harness.results.metrics import METRICS

CURVES_AT_MOST = 120  # lines of single trials; more trials are drawn as a band


def curve_section(data: StudyData) -> Section | None:
    """Show the validation score by epoch; None if no epoch has a score."""
    column = f"validation_{data.study.objective}"
    table = data.epochs.dropna(subset=[column])
    if table.empty:
        return None
    low, high = table[column].quantile(0.01), table[column].max()
    limits = (float(low - 0.04 * (high - low)), float(high + 0.06 * (high - low)) + 1e-9)
    pictures, drawn = [], []
    for strategy in data.study.strategies:
        own = table[table["strategy"] == strategy]
        runs = [run.trial_id for run in data.winners[strategy].runs] if strategy in data.winners else []
        search, confirmed = own[own["kind"] == "search"], own[own["trial_id"].isin(runs)]
        if len(search) or len(confirmed):
            pictures.append(learning_curves(search, confirmed, strategy, data.study.objective, limits))
            drawn.append(strategy)
    note = f"Validation {METRICS[data.study.objective].label} by epoch. Thin: each trial of the search"
    note += "; bold: the winner in the confirmation, mean and range of its seeds." if data.winners else "."
    return Section("curves", curve_heading(list(data.winners.values()), data.study.objective), pictures, note)


def curve_heading(winners: Sequence[TestPredictions], objective: str) -> str:
    """Say whether the confirmed winners were still improving at their last epochs."""
    rising = [side.strategy for side in winners if still_rising(side.runs, objective) is not None]
    if rising:
        names = wording.listed(wording.STRATEGY[name] for name in rising)
        was = "was" if len(rising) == 1 else "were"
        return wording.capital(f"{names} {was} not trained to the end")
    if winners:
        return "The winners were trained to the end: their last epochs brought nothing clear"
    return "Learning curves"


def learning_curves(
    search: pd.DataFrame, confirmed: pd.DataFrame, strategy: str, objective: str, limits: tuple[float, float]
) -> Picture:
    """Draw the validation score by epoch: search trials thin, the confirmed winner bold with the range of its seeds.

    Args:
        search: epochs of the search trials of this strategy (`trial_id`, `epoch`, `validation_<objective>`).
        confirmed: the same columns, of the winner's confirmation runs.
        limits: of the score axis, shared by all strategies.
    """
    column, colour = f"validation_{objective}", style.STRATEGY[strategy]
    with drawing(360, 260) as (figure, axes):
        trials = search["trial_id"].nunique()
        if trials <= CURVES_AT_MOST:
            lines = [g[["epoch", column]].to_numpy() for _, g in search.groupby("trial_id", sort=False)]
            axes.add_collection(LineCollection(lines, colors=colour, linewidths=0.9, alpha=0.35))
        else:
            spread = search.groupby("epoch")[column].quantile(np.array([0.1, 0.9])).unstack()
            axes.fill_between(spread.index, spread[0.1], spread[0.9], color=colour, alpha=0.18, lw=0)
        if len(confirmed):
            sns.lineplot(
                confirmed,
                x="epoch",
                y=column,
                ax=axes,
                color=colour,
                lw=2.4,
                errorbar=("pi", 100),
                err_kws={"alpha": 0.25, "lw": 0},
            )
        last = int(max(search["epoch"].max() if len(search) else 1, confirmed["epoch"].max() if len(confirmed) else 1))
        axes.set(xlim=(1, max(last, 2)), ylim=limits, xlabel="epoch", ylabel="")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        axes.set_title(wording.capital(wording.STRATEGY[strategy]), color=colour, weight="bold")
        score_axis(axes.yaxis, objective)
        described = wording.count(trials, "search trial")
        if len(confirmed):
            end = confirmed[confirmed["epoch"] == confirmed["epoch"].max()][column].mean()
            described += f"; the confirmed winner ends at {wording.level(end, objective)}"
        return picture(figure, f"curves-{strategy}", f"Learning curves of {wording.STRATEGY[strategy]}: {described}.")
