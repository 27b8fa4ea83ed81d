"""Axes and labels that several figures share: scores in the metric's unit, differences, names of rows and lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from harness.analysis import wording
from harness.report import style
from harness.results.metrics import METRICS

BETWEEN = 1.5  # in zorder: above grid lines, below marks
NEARER = 0.2  # of a row's height, by which a name is moved from the row above towards its own
APART = 0.17  # of the axis' height: smallest distance of two labels that have two lines each


def lower(objective: str) -> bool:
    """Return whether a lower score is better."""
    return METRICS[objective].sign < 0


def scale(objective: str) -> str:
    """Return the metric's label; it says so if lower is better."""
    label = METRICS[objective].label
    return f"{label} (lower is better)" if lower(objective) else label


def score_axis(axis: Any, objective: str) -> None:
    """Set the ticks of an axis of scores, in percent if the metric is written so."""
    axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    if METRICS[objective].in_percent:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:g} %"))


def difference_axis(axes: Axes, objective: str, which: Literal["x", "y"] = "x") -> None:
    """Set the ticks of an axis of differences: symmetric around zero and with a sign."""
    factor = 100 if METRICS[objective].in_percent else 1
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10], symmetric=True))
    axis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value * factor:+.4g}".replace("-", wording.MINUS) if value else "0")
    )


def row_name(axes: Axes, y: float, name: str, **look: Any) -> None:
    """Write a row's name above its marks at the left edge, with a background that hides the grid lines."""
    background = {"boxstyle": "square,pad=0.1", "facecolor": style.SURFACE, "edgecolor": "none"}
    axes.text(0, y, name, transform=axes.get_yaxis_transform(), zorder=BETWEEN, bbox=background, **look)


def named_ends(axes: Axes, ends: Mapping[str, float]) -> None:
    """Write the strategies' names at the right, at the height where their lines end. Set the limits before."""
    low, high = axes.get_ylim()
    shares = [(end - low) / (high - low) for end in ends.values()]
    for strategy, y in zip(ends, heights(shares, APART), strict=True):
        axes.text(
            1.03,
            y,
            wording.STRATEGY[strategy].replace(" ", "\n", 1),
            transform=axes.transAxes,
            va="center",
            color=style.STRATEGY[strategy],
            weight="bold",
            linespacing=1.05,
        )


def heights(wanted: Sequence[float], gap: float) -> list[float]:
    """Return heights near the wanted ones that are at least `gap` apart, in the same order."""
    placed: dict[int, float] = {}
    floor = -np.inf
    for index in np.argsort(wanted, kind="stable"):
        placed[int(index)] = floor = max(float(wanted[index]), floor + gap)
    moved = max((placed[i] - wanted[i] for i in placed), default=0.0) / 2
    return [placed[i] - moved for i in range(len(wanted))]
