"""Axes that speak the metric's language: percent where people say percent, and the better end named."""

from __future__ import annotations

from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from harness.report import wording
from harness.results.metrics import METRICS


def lower(objective: str) -> bool:
    return METRICS[objective].direction == "minimize"


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
