"""The section on classes: the recall of each class on the test split, by the winners of two strategies.

`harness.analysis.class_recall` computes the recalls and says how their intervals are made. Here the differences are
read with Holm's correction over all classes (Holm 1979).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from harness.analysis import wording
from harness.analysis.class_recall import SCALE, ClassRecall, Recall, most_apart, recalls
from harness.analysis.statistics import holm_levels
from harness.analysis.study_data import StudyData
from harness.analysis.test_predictions import TestPredictions
from harness.report import style
from harness.report.axes import score_axis
from harness.report.section import Section, Table
from harness.report.style import Picture, drawing, picture

NAME = 24  # largest number of letters of a class's name in the figure


def class_section(data: StudyData) -> Section | None:
    """Show the recall of every class by the winners of the first compared pair; None if no pair was compared."""
    pair = _pair(data)
    if pair is None:
        return None
    a, b = pair
    names = data.class_names(a.probabilities.shape[2])
    found = recalls(a, b, names)
    shown = most_apart(found)
    note = (
        f"The share of each class's test images that was recognised, mean over {_seeds(a, b)} and its 95 % interval, "
        f"which counts seeds and test {'images' if a.groups is None else 'groups'}. Clear is a difference at 5 % "
        "after Holm's correction for all classes."
    )
    if len(shown) < len(found):
        note += f" Drawn are the {len(shown)} of {len(found):,} classes that differ most clearly."
    if (missing := len(names) - len(found)) > 0:
        note += f" {wording.capital(wording.count(missing, 'class', 'classes'))} without a test image left out."
    drawn = [a.strategy, b.strategy]
    return Section("classes", heading(found, *drawn), [_figure(shown, *drawn)], note, drawn, table=_table(found, drawn))


def heading(found: Sequence[ClassRecall], a: str, b: str) -> str:
    """Say which class each strategy clearly recognises better, with the largest difference."""
    levels = holm_levels([one.p_value for one in found])
    clear = [one for one, level in zip(found, levels, strict=True) if one.p_value < 1 - level]
    parts = []
    for strategy, sign in ((b, 1), (a, -1)):
        own = sorted((one for one in clear if sign * one.gain.mean > 0), key=lambda one: -abs(one.gain.mean))
        if own:
            size = wording.difference(abs(own[0].gain.mean), SCALE, signed=True)
            more = f", and {wording.count(len(own) - 1, 'more class', 'more classes')}" if own[1:] else ""
            parts.append(f"{wording.STRATEGY[strategy]} recognises {own[0].name} better ({size} points{more})")
    return wording.capital("; ".join(parts)) if parts else "No class is clearly better recognised by one strategy"


def _pair(data: StudyData) -> tuple[TestPredictions, TestPredictions] | None:
    """Return the winners of the first compared pair that share two seeds and their test images."""
    pairs = data.summary["comparisons"]
    a, b = (data.winners.get(pairs[0][side]) for side in "ab") if pairs else (None, None)
    if a is None or b is None or len(set(a.seeds) & set(b.seeds)) < 2 or not np.array_equal(a.rows, b.rows):
        return None
    return a, b


def _seeds(a: TestPredictions, b: TestPredictions) -> str:
    return wording.count(len(set(a.seeds) & set(b.seeds)), "seed")


def _table(found: Sequence[ClassRecall], drawn: Sequence[str]) -> Table:
    names = [wording.capital(wording.STRATEGY[strategy]) for strategy in drawn]
    columns = [("class", False), ("test images", True), *((name, True) for name in names), ("difference", True)]
    rows = [[one.name, f"{one.images:,}", one.a.text(), one.b.text(), one.gain.text(signed=True)] for one in found]
    caption = f"Recall of each class with 95 % intervals; difference: {names[1]} minus {names[0]}, in points"
    return Table(caption, columns, rows)


def _figure(shown: Sequence[ClassRecall], a: str, b: str) -> Picture:
    """Draw a row for each class: mean recall and interval of both strategies, a above b."""
    with drawing(480, 64 + 30 * len(shown)) as (figure, axes):
        for row, one in enumerate(shown):
            _mark(axes, one.a, -row + 0.17, a)
            _mark(axes, one.b, -row - 0.17, b)
        names = [wording.shortened(one.name, NAME) for one in shown]
        axes.set_yticks(-np.arange(len(shown)), names)
        axes.set(ylim=(-len(shown) + 0.4, 0.6), xlabel="recall on test")
        axes.margins(x=0.04)
        axes.tick_params(axis="y", labelcolor=style.INK)
        axes.grid(visible=False, axis="y")
        score_axis(axes.xaxis, SCALE)
        described = "; ".join(
            f"{one.name} {wording.level(one.a.mean, SCALE)} and {wording.level(one.b.mean, SCALE)}" for one in shown
        )
        who = f"{wording.STRATEGY[a]} and {wording.STRATEGY[b]}"
        return picture(figure, "classes", f"Recall of each class on test with {who}: {described}.")


def _mark(axes: Axes, recall: Recall, y: float, strategy: str) -> None:
    colour = style.STRATEGY[strategy]
    if recall.ci95:
        axes.plot(recall.ci95, [y, y], color=colour, lw=2.2, zorder=2)
    axes.scatter(
        recall.mean, y, s=46, color=colour, marker=style.MARKER[strategy], edgecolor=style.SURFACE, lw=1, zorder=3
    )
