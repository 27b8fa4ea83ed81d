"""The sections around the evidence, with layouts of their own: answer, strategies, recommendation, data and method.

Those of the recommendation and of the data are always made; their templates show nothing if there is nothing to show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from harness.analysis import wording
from harness.analysis.study_data import StudyData
from harness.analysis.test_predictions import TestPredictions
from harness.report import style
from harness.report.axes import difference_axis
from harness.report.section import Section
from harness.report.style import Picture, drawing, picture
from harness.results.metrics import score, sign_of

ROW = 112  # height of one comparison, in CSS pixels
_LEFT, _RIGHT = "\N{LEFTWARDS ARROW}", "\N{RIGHTWARDS ARROW}"


def answer_section(data: StudyData) -> Section:
    """Say the verdict, or why there is none."""
    values = {"verdict_pictures": verdict_pictures(data)}
    return Section("answer", "The answer", template="answer", values=values)


def verdict_pictures(data: StudyData) -> tuple[Picture, Picture] | None:
    """The paired differences, for a wide and for a narrow screen; None where no pair was compared."""
    pairs = data.summary["comparisons"]
    if not pairs:
        return None
    each = {(p["a"], p["b"]): _each_seed(data.winners, p["a"], p["b"], data.study.objective) for p in pairs}
    zone, objective = data.study.confirmation.equivalence, data.study.objective
    return (differences(pairs, each, zone, objective), differences(pairs, each, zone, objective, width=350))


def _each_seed(winners: dict[str, TestPredictions], a: str, b: str, objective: str) -> list[float]:
    if a not in winners or b not in winners:
        return []
    one, two = winners[a], winners[b]
    sign = sign_of(objective)
    shared = sorted(set(one.seeds) & set(two.seeds))
    pairs = zip(one.at(shared), two.at(shared), strict=True) if shared else ()
    return [sign * (score(objective, q, two.labels) - score(objective, p, one.labels)) for p, q in pairs]


def differences(
    pairs: Sequence[dict[str, Any]],
    each_seed: Mapping[tuple[str, str], Sequence[float]],
    equivalence: float,
    objective: str,
    width: int = 1000,
) -> Picture:
    """Paired differences on test, one row a pair: every seed, the mean, its 95 % interval, the equivalence zone.

    Args:
        pairs: the `comparisons` of summary.json, the primary one first.
        each_seed: (a, b) -> difference for each seed, b minus a, positive favours b.
        width: CSS pixels; below 500 the side labels are shorter.
    """
    narrow = width < 500
    ends = [abs(end) for pair in pairs for end in pair["ci95"]]
    reach = 1.1 * max([*ends, *(abs(d) for ds in each_seed.values() for d in ds), 1.6 * equivalence, 1e-6])
    with drawing(width, 70 + ROW * len(pairs)) as (figure, axes):
        axes.axvspan(-equivalence, equivalence, color=style.ZONE, lw=0, zorder=0)
        axes.axvline(0, color=style.MUTED, lw=1, zorder=1)
        axes.set(xlim=(-reach, reach), ylim=(-len(pairs) + 0.5, 0.5), yticks=[])
        for row, pair in enumerate(pairs):
            _difference_row(axes, -row, pair, each_seed.get((pair["a"], pair["b"]), ()), objective)
            _ends(axes, -row + 0.48, pair, "" if narrow else " better")
        zone = f"\u00b1 {wording.difference(equivalence, objective)} counts as equal"
        above = axes.get_xaxis_transform()
        axes.text(0, 1.02, zone, transform=above, ha="center", va="bottom", color=style.MUTED, fontsize=11)
        axes.grid(visible=False)
        difference_axis(axes, objective)
        axes.set_xlabel(f"difference on test, {wording.unit(objective).removeprefix('of ')}")
        said = " ".join(_told(pair, objective) for pair in pairs)
        return picture(figure, f"differences{width}", f"Paired differences on the test split. {said}")


def _difference_row(axes: Axes, y: float, pair: dict[str, Any], seeds: Sequence[float], objective: str) -> None:
    mean, (low, high) = pair["difference"], pair["ci95"]
    colour = style.STRATEGY[pair["b"] if mean >= 0 else pair["a"]]
    y -= 0.1
    axes.plot([low, high], [y, y], color=colour, lw=3, solid_capstyle="round", zorder=3)
    heights = y + 0.15 + 0.07 * (np.arange(len(seeds)) % 3)  # one above the other: seeds may agree
    axes.scatter(seeds, heights, s=30, facecolor=style.SURFACE, edgecolor=colour, lw=1.4, zorder=4)
    axes.scatter([mean], [y], s=120, color=colour, marker="D", edgecolor=style.SURFACE, lw=1.5, zorder=5)
    text, below = wording.difference(mean, objective, signed=True), (0, -11)
    axes.annotate(text, (mean, y), below, textcoords="offset points", ha="center", va="top", weight="bold", fontsize=14)


def _ends(axes: Axes, y: float, pair: dict[str, Any], word: str) -> None:
    """Which strategy each side of zero favours, in its colour."""
    low, high = axes.get_xlim()
    a, b = (f"{wording.STRATEGY[pair[side]]}{word}" for side in "ab")
    axes.text(low, y, f"{_LEFT} {a}", va="top", color=style.STRATEGY[pair["a"]])
    axes.text(high, y, f"{b} {_RIGHT}", va="top", ha="right", color=style.STRATEGY[pair["b"]])


def _told(pair: dict[str, Any], objective: str) -> str:
    low, high = (wording.difference(end, objective) for end in pair["ci95"])
    mean = wording.difference(pair["difference"], objective, signed=True)
    names = f"{wording.capital(wording.STRATEGY[pair['b']])} minus {wording.STRATEGY[pair['a']]}"
    return f"{names}: {mean} {wording.unit(objective)}, 95 % interval {low} to {high}."
