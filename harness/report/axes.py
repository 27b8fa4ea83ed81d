"""Axes that speak the metric's language: percent where people say percent, and the better end named."""

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
NEARER = 0.2  # of a line: a name stands nearer to its own row than to the one above
APART = 0.17  # of the axis' height, between two labels of two lines


def lower(objective: str) -> bool:
    """Whether a lower score is better."""
    return METRICS[objective].sign < 0


def scale(objective: str) -> str:
    label = METRICS[objective].label
    return f"{label} (lower is better)" if lower(objective) else label


def score_axis(axis: Any, objective: str) -> None:
    axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    if METRICS[objective].in_percent:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:g} %"))


def difference_axis(axes: Axes, objective: str, which: Literal["x", "y"] = "x") -> None:
    factor = 100 if METRICS[objective].in_percent else 1
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10], symmetric=True))
    axis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value * factor:+.4g}".replace("-", wording.MINUS) if value else "0")
    )


def row_name(axes: Axes, y: float, name: str, **look: Any) -> None:
    """A row's name above its marks, at the left edge: on a ground of its own, since grid lines pass there."""
    ground = {"boxstyle": "square,pad=0.1", "facecolor": style.SURFACE, "edgecolor": "none"}
    axes.text(0, y, name, transform=axes.get_yaxis_transform(), zorder=BETWEEN, bbox=ground, **look)


def named_ends(axes: Axes, ends: Mapping[str, float]) -> None:
    """The strategies' names at the right, at the height where their lines end; the axis has its limits already."""
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
    """Where labels stand that want these heights: in their order, `gap` apart, moved as little as can be seen."""
    placed: dict[int, float] = {}
    floor = -np.inf
    for index in np.argsort(wanted, kind="stable"):
        placed[int(index)] = floor = max(float(wanted[index]), floor + gap)
    moved = max((placed[i] - wanted[i] for i in placed), default=0.0) / 2
    return [placed[i] - moved for i in range(len(wanted))]
