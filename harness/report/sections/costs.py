"""The section on costs: the score of every complete trial against its device seconds, with the Pareto front."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from harness.analysis import wording
from harness.analysis.cost_front import Point, front
from harness.analysis.study_data import StudyData
from harness.report import style
from harness.report.axes import lower, scale, score_axis
from harness.report.section import Section, Table
from harness.report.style import Picture, drawing, picture
from harness.results.metrics import sign_of

WIDTH, HEIGHT = 520, 330  # CSS pixels
WIDE = 10  # largest over smallest seconds from which the axis is logarithmic
DESCRIBED = 12  # largest number of points of the front in the table and in the alternative text
_LINE, _LETTER = 14.0, 6.0  # CSS pixels of a label's line and of one letter

Box = tuple[float, float, float, float]  # left, right, low, high in CSS pixels; high is towards the better score


def cost_section(data: StudyData) -> Section | None:
    """Show the validation score of every complete trial against its seconds; None with fewer than two trials."""
    table, objective = data.complete, data.study.objective
    trials = table[table["seconds_alone"] > 0]
    if len(trials) < 2:
        return None
    points = front(trials, objective)
    drawn = [name for name in wording.STRATEGY if (trials["strategy"] == name).any()]
    note = (
        "Each mark is one complete trial: its validation score against the device seconds that its training takes "
        "alone. The line is the front: nothing above it was found for as few seconds. The trials differ in other "
        "values too, so a step of the front need not come from the depth or the backbone, and a small one may be "
        "chance: the front keeps the luckiest trial at each cost."
    )
    if lower(objective):
        note = note.replace("nothing above it", "nothing below it")
    title = heading(points, drawn, objective, data.study.confirmation.equivalence)
    return Section("costs", title, [_figure(trials, points, objective)], note, drawn, table=_table(points, objective))


def heading(points: Sequence[Point], drawn: Sequence[str], objective: str, equivalence: float) -> str:
    """Say up to which cost which strategy is on the front, and what the higher costs gain.

    Args:
        points: the front, the cheapest first.
        drawn: the strategies that have trials.
        equivalence: differences up to this count as equal.
    """
    first, last = points[0], points[-1]
    name = {strategy: wording.STRATEGY[strategy] for strategy in drawn}
    if len(points) == 1:
        best = f"{wording.level(first.score, objective)} in {wording.duration(first.seconds)}"
        return f"The cheapest trial also scored best: {name[first.strategy]}, {best}"
    order = [point.strategy for point in points]
    turns = [i for i in range(1, len(order)) if order[i] != order[i - 1]]
    if not turns and len(drawn) > 1:
        return f"Only {name[first.strategy]} is on the cost-score front: its best trial {_gain(first, last, objective)}"
    if not turns:
        more = _gain(first, last, objective)
        return f"{wording.capital(name[first.strategy])}: the best trial {more}{_equal(first, last, equivalence)}"
    if len(turns) > 1:
        who = wording.listed(name[strategy] for strategy in dict.fromkeys(order))
        ends = f"from {wording.duration(first.seconds)} to {wording.duration(last.seconds)} a training"
        return wording.capital(f"{who} share the cost-score front, {ends}")
    turn = points[turns[0] - 1]
    start = f"{wording.capital(name[turn.strategy])} is on the cost-score front up to {wording.duration(turn.seconds)}"
    gained = f"{_points(turn, last, objective)} for {wording.times(last.seconds / turn.seconds)} the seconds"
    return f"{start} a training; beyond it {name[last.strategy]} gains {gained}{_equal(turn, last, equivalence)}"


def _gain(first: Point, last: Point, objective: str) -> str:
    ratio = wording.times(last.seconds / first.seconds)
    return f"gains {_points(first, last, objective)} over its cheapest one for {ratio} the seconds"


def _points(first: Point, last: Point, objective: str) -> str:
    return f"{wording.difference(abs(last.score - first.score), objective)} {wording.unit(objective)}"


def _equal(first: Point, last: Point, equivalence: float) -> str:
    return ", which counts as equal" if abs(last.score - first.score) <= equivalence else ""


def _described(points: Sequence[Point]) -> list[Point]:
    """Return the points to describe in words: all, or the two ends and the largest steps if there are many."""
    steps = np.abs(np.diff([point.score for point in points], prepend=np.inf))  # the first is always kept
    steps[-1] = np.inf
    kept = np.sort(np.argsort(-steps, kind="stable")[:DESCRIBED])
    return [points[i] for i in kept]


def _table(points: Sequence[Point], objective: str) -> Table:
    columns = [("on the front", False), ("strategy", False), ("seconds", True), (scale(objective), True)]
    rows = [
        [
            ", ".join(filter(None, p.names)),
            wording.capital(wording.STRATEGY[p.strategy]),
            wording.duration(p.seconds),
            wording.level(p.score, objective),
        ]
        for p in _described(points)
    ]
    which = "" if len(rows) == len(points) else f", its ends and largest steps, {len(rows)} of {len(points)}"
    return Table(f"The front of validation score against device seconds{which}", columns, rows)


def _figure(trials: pd.DataFrame, points: Sequence[Point], objective: str) -> Picture:
    """Draw score against seconds, with the front as a line of steps and labels at its points."""
    seconds, scores = trials["seconds_alone"].to_numpy(float), trials["score"].to_numpy(float)
    wide = bool(seconds.max() / seconds.min() > WIDE)
    dense = len(trials) > style.DENSE
    look = style.DUST if dense else {"s": 36, "lw": 0.6, "alpha": 0.6, "ec": style.SURFACE}
    with drawing(WIDTH, HEIGHT) as (figure, axes):
        for strategy in wording.STRATEGY:
            part = trials["strategy"].to_numpy() == strategy
            colour, marker = style.STRATEGY[strategy], style.MARKER[strategy]
            marks = axes.scatter(seconds[part], scores[part], color=colour, marker=marker, **look)
            marks.set_rasterized(dense)
        x, y = [p.seconds for p in points], [p.score for p in points]
        axes.step([*x, float(seconds.max())], [*y, y[-1]], where="post", color=style.INK, lw=1.4, zorder=3)
        for p in points:
            axes.scatter(
                p.seconds,
                p.score,
                s=64,
                color=style.STRATEGY[p.strategy],
                marker=style.MARKER[p.strategy],
                edgecolor=style.INK,
                lw=1.3,
                zorder=4,
            )
        _limits(axes, seconds, scores, wide, objective)
        _label(axes, points, wide, objective)
        axes.set(xlabel="device seconds of one training, alone", ylabel="")
        axes.set_title(f"validation {scale(objective)}")
        score_axis(axes.yaxis, objective)
        described = "; ".join(
            f"{wording.STRATEGY[p.strategy]}, {', '.join(filter(None, p.names))}, {wording.duration(p.seconds)} and "
            f"{wording.level(p.score, objective)}"
            for p in _described(points)
        )
        return picture(figure, "costs", f"Validation score against device seconds. The front: {described}.")


def _limits(axes: Axes, seconds: NDArray[np.float64], scores: NDArray[np.float64], wide: bool, objective: str) -> None:
    """Set limits with room around the marks, and above the best one (below, if lower is better) for its label."""
    low, high = float(scores.min()), float(scores.max())
    reach = max(high - low, 1e-6)
    below, above = (0.16, 0.06) if lower(objective) else (0.06, 0.16)
    left, right = float(seconds.min()), float(seconds.max())
    axes.set(ylim=(low - below * reach, high + above * reach))
    if not wide:
        axes.set(xlim=(left - 0.06 * (right - left) - 1e-6, right + 0.06 * (right - left) + 1e-6))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        return
    room = (right / left) ** 0.06
    axes.set(xscale="log", xlim=(left / room, right * room))
    leads = (1, 2, 5) if right / left < 300 else (1,)
    ticks = [lead * 10.0**e for e in range(-3, 8) for lead in leads if left / room <= lead * 10.0**e <= right * room]
    axes.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
    axes.set_xticks([], minor=True)


def _label(axes: Axes, points: Sequence[Point], wide: bool, objective: str) -> None:
    """Write what the points of the front are if there is room: the ends first, then the largest steps.

    A label is on the empty side of the front: left of its point, or right of it if the next step is far enough.
    """
    steps = {p: abs(p.score - before.score) for before, p in itertools.pairwise(points)}
    ranked = sorted(points, key=lambda p: (p not in (points[0], points[-1]), -steps.get(p, 0.0)))
    sign = float(sign_of(objective))
    places = {p: _place(axes, p, wide, sign) for p in points}
    taken: list[Box] = []
    for p in ranked:
        lines = [line for line in p.names if line]
        across, tall = max(map(len, lines)) * _LETTER, len(lines) * _LINE
        x, y = places[p]
        # A label between two steps would not show to which one it belongs.
        apart = 6 if p in (points[0], points[-1]) else 20
        others = [(q[0] - 9, q[0] + 9, q[1] - 6, q[1] + apart) for name, q in places.items() if name != p]
        later = min((places[q][0] for q in points if q.seconds > p.seconds), default=np.inf)
        boxes: list[tuple[Literal["left", "right"], Box]] = [("right", (x - 5 - across, x - 5, y + 7, y + 7 + tall))]
        if later > x + across + 6:
            boxes.append(("left", (x, x + across, y + 7, y + 7 + tall)))
        for side, box in boxes:
            if box[0] > 4 and box[1] < WIDTH - 60 and not any(_overlap(box, other) for other in [*taken, *others]):
                taken.append(box)
                shift = (-5 if side == "right" else 0, sign * 7)
                axes.annotate(
                    "\n".join(lines),
                    (p.seconds, p.score),
                    shift,
                    textcoords="offset points",
                    ha=side,
                    va="bottom" if sign > 0 else "top",
                    fontsize=11,
                    linespacing=1.05,
                    zorder=5,
                    color=style.STRATEGY[p.strategy],
                )
                break


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]


def _place(axes: Axes, p: Point, wide: bool, sign: float) -> tuple[float, float]:
    """Return roughly where a point lies in the axes, in CSS pixels from the left and towards the better score."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    across = np.log(p.seconds / left) / np.log(right / left) if wide else (p.seconds - left) / (right - left)
    return float(across) * (WIDTH - 60), sign * (p.score - low) / (high - low) * (HEIGHT - 70)
