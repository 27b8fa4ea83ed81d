"""The section on the progress of the search: the best validation score so far, against trials and seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.ticker import MaxNLocator, NullLocator

from harness.analysis import wording
from harness.analysis.anytime import BAND, CLOSE, ORDERS, Anytime, BestSoFar, anytime
from harness.analysis.study_data import StudyData
from harness.report import style
from harness.report.axes import lower, named_ends, scale, score_axis
from harness.report.section import Section
from harness.report.style import Picture, drawing, picture
from harness.results.metrics import METRICS

WIDE = 60  # number of trials above which their axis is logarithmic
# Ticks in seconds that are round numbers of seconds, minutes or hours; powers of ten would not be.
TIMES = (0.01, 0.1, 1, 10, 60, 600, 3600, 36_000, 360_000, 3_600_000)
FINER = (0.02, 0.05, 0.2, 0.5, 2, 5, 20, 30, 120, 300, 1200, 1800, 7200, 18_000, 72_000, 180_000)
TICKS_AT_MOST = 6


def anytime_section(data: StudyData) -> Section | None:
    """Show the best score so far, by trials and by time; None if every search has too few trials."""
    objective = data.study.objective
    searches = [made for name in data.study.strategies if (made := anytime(data.records, name, objective))]
    return _anytime(searches, objective) if searches else None


def anytime_heading(searches: Sequence[Anytime], objective: str) -> str:
    """Say after how many trials each search was near its best, and which was still improving at its end."""
    early = [search for search in searches if not search.still_gaining]
    parts = []
    if early:
        first, *rest = [
            f"{wording.STRATEGY[search.strategy]}{{}} after {search.near} of {search.trials} trials" for search in early
        ]
        was = f" was expected within {wording.points(CLOSE, objective)} of its best"
        parts.append(wording.listed([first.format(was), *(text.format("") for text in rest)]))
    if late := [search for search in searches if search.still_gaining]:
        names = wording.listed(wording.STRATEGY[search.strategy] for search in late)
        gains = wording.listed(wording.difference(search.last_gain, objective) for search in late)
        points = " points" if METRICS[objective].in_percent else ""
        was, its = ("was", "its") if len(late) == 1 else ("were", "their")
        parts.append(f"{names} {was} still gaining, by an expected {gains}{points} in {its} last quarter of trials")
    return wording.capital("; ".join(parts))


def _at_equal_time(searches: Sequence[Anytime], objective: str) -> str:
    """Say what each search is expected to reach in the total device time of the shortest one."""
    timed = [search.by_seconds for search in searches if search.by_seconds]
    if len(timed) < 2:
        return ""
    shortest = min(float(curve.cost[-1]) for curve in timed)
    parts = []
    for curve in timed:
        if curve.cost[0] > shortest:
            parts.append(f"{wording.STRATEGY[curve.strategy]} would hardly have finished a trial")
        else:
            reached = float(np.interp(shortest, curve.cost, curve.mean))
            parts.append(f"{wording.STRATEGY[curve.strategy]} reached {wording.level(reached, objective)}")
    return f" In {wording.duration(shortest)}, all that the cheapest search took, {wording.listed(parts)}."


def anytime_figure(curves: Sequence[BestSoFar], against: Literal["trials", "seconds"], objective: str) -> Picture:
    """Draw the expected best score so far of each strategy with its band, and thin the actual one, against the cost."""
    low, high = limits(curves, objective)
    with drawing(400, 280) as (figure, axes):
        for curve in curves:
            colour, marker = style.STRATEGY[curve.strategy], style.MARKER[curve.strategy]
            axes.fill_between(curve.cost, curve.low, curve.high, color=colour, alpha=0.16, lw=0)
            axes.step(curve.cost, curve.actual, where="post", color=colour, lw=1, alpha=0.6)
            axes.plot(curve.cost, curve.mean, color=colour, lw=2.4)
            end = (curve.cost[-1], curve.mean[-1])
            axes.scatter(*end, s=46, color=colour, marker=marker, edgecolor=style.SURFACE, lw=1, zorder=4)
        axes.set(ylim=(low, high), ylabel="")
        named_ends(axes, {curve.strategy: float(curve.mean[-1]) for curve in curves})
        most = max(float(curve.cost[-1]) for curve in curves)
        if against == "seconds":
            least = min(float(curve.cost[0]) for curve in curves)
            times = time_ticks(least, most)
            axes.set(xscale="log", xlabel="device time, each trial alone")
            axes.set_xticks(times, [_time(at) for at in times])
            axes.xaxis.set_minor_locator(NullLocator())
        else:
            axes.set(xlabel="trials")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
            if most > WIDE:
                axes.set(xscale="log")
                shown = [at for at in (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000) if at <= most]
                axes.set_xticks(shown, [f"{at:,}" for at in shown])
                axes.xaxis.set_minor_locator(NullLocator())
        axes.set_title(f"best validation {scale(objective)}")
        score_axis(axes.yaxis, objective)
        described = "; ".join(_describe(curve, against, objective) for curve in curves)
        return picture(figure, f"anytime-{against}", f"Expected best validation score so far: {described}.")


def limits(curves: Sequence[BestSoFar], objective: str) -> tuple[float, float]:
    """Return the limits of the score axis: every mean, the actual end, and the better side of the bands.

    The worse side of the bands may be cut off: a single diverging log-loss would flatten everything else.
    """
    seen = np.concatenate(
        [part for c in curves for part in (c.mean, c.actual[-1:], c.low if lower(objective) else c.high)]
    )
    reach = 0.06 * float(np.ptp(seen)) + 1e-6
    return float(seen.min()) - reach, float(seen.max()) + reach


def time_ticks(least: float, most: float) -> list[float]:
    """Return the ticks in seconds between two times; the finer ones too if there is room."""
    fine, coarse = (
        [at for at in sorted(times) if least * 0.9 <= at <= most * 1.1] for times in ((*TIMES, *FINER), TIMES)
    )
    return fine if len(fine) <= TICKS_AT_MOST else coarse


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:g} s"
    return f"{seconds / 60:g} min" if seconds < 3600 else f"{seconds / 3600:,.0f} h"


def _describe(curve: BestSoFar, against: str, objective: str) -> str:
    """Write a curve in words: `fine-tuning 61.0 % after 1 trial, 74.2 % after 5 trials`."""
    # By seconds, some random orders have not finished a trial at the first point, so it is left out.
    first = {0} if against == "trials" else set()
    at = sorted({*first, int(np.searchsorted(curve.cost, curve.cost[-1] / 2)), len(curve.cost) - 1})
    parts = []
    for index in at:
        cost, mean = float(curve.cost[index]), wording.level(float(curve.mean[index]), objective)
        amount = wording.duration(cost) if against == "seconds" else wording.count(round(cost), "trial")
        parts.append(f"{mean} after {amount}")
    return f"{wording.STRATEGY[curve.strategy]} {', '.join(parts)}"


def _anytime(searches: Sequence[Anytime], objective: str) -> Section:
    timed = [search.by_seconds for search in searches if search.by_seconds]
    pictures = [anytime_figure([search.by_trials for search in searches], "trials", objective)]
    if timed:
        pictures.append(anytime_figure(timed, "seconds", objective))
    low, high = (f"{share * 100:.0f}" for share in BAND)
    note = (
        "Bold: the expected best validation score of so many trials, or of so much device time, were they run in "
        f"random order (by trials exactly, by time over {ORDERS} orders). Band: {low} to {high} % of the orders. Thin: "
        "the order they ran in; a search that learns has its better trials late, and may run below what is expected "
        "of a random order. A trial that was pruned or failed counts with its cost and as the worst complete one."
    )
    return Section(
        "search-anytime", anytime_heading(searches, objective), pictures, note + _at_equal_time(searches, objective)
    )
