"""The section with the verdict, and the figure of the paired differences on the test split."""

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
    """Show the verdict, or the reason why there is none. The section is always made."""
    values = {"verdict_pictures": verdict_pictures(data)}
    return Section("answer", "The answer", template="answer", values=values)


def verdict_pictures(data: StudyData) -> tuple[Picture, Picture] | None:
    """Draw the paired differences for a wide and for a narrow screen; None if no pair was compared."""
    pairs = data.summary["comparisons"]
    if not pairs:
        return None
    each = {(p["a"], p["b"]): _each_seed(data.winners, p["a"], p["b"], data.study.objective) for p in pairs}
    zone, objective = data.study.confirmation.equivalence, data.study.objective
    return (differences(pairs, each, zone, objective), differences(pairs, each, zone, objective, width=350))


def _each_seed(winners: dict[str, TestPredictions], a: str, b: str, objective: str) -> list[float]:
    """Return the difference b minus a at each shared seed; positive favours b."""
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
    """Draw paired differences on test with a row for each pair: every seed, mean, 95 % interval, equivalence zone.

    Args:
        pairs: the `comparisons` of summary.json, the primary one first.
        each_seed: (a, b) -> the difference b minus a at each seed; positive favours b.
        equivalence: differences within ± this count as equal.
        width: CSS pixels; below 500 the labels are shorter.
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
            _name_ends(axes, -row + 0.48, pair, "" if narrow else " better")
        zone = f"\u00b1 {wording.difference(equivalence, objective)} counts as equal"
        above = axes.get_xaxis_transform()
        axes.text(0, 1.02, zone, transform=above, ha="center", va="bottom", color=style.MUTED, fontsize=11)
        axes.grid(visible=False)
        difference_axis(axes, objective)
        axes.set_xlabel(f"difference on test, {wording.unit(objective).removeprefix('of ')}")
        rows = " ".join(_describe(pair, objective) for pair in pairs)
        return picture(figure, f"differences{width}", f"Paired differences on the test split. {rows}")


def _difference_row(axes: Axes, y: float, pair: dict[str, Any], seeds: Sequence[float], objective: str) -> None:
    mean, (low, high) = pair["difference"], pair["ci95"]
    colour = style.STRATEGY[pair["b"] if mean >= 0 else pair["a"]]
    y -= 0.1
    axes.plot([low, high], [y, y], color=colour, lw=3, solid_capstyle="round", zorder=3)
    heights = y + 0.15 + 0.07 * (np.arange(len(seeds)) % 3)  # at three heights, because seeds may have equal values
    axes.scatter(seeds, heights, s=30, facecolor=style.SURFACE, edgecolor=colour, lw=1.4, zorder=4)
    axes.scatter([mean], [y], s=120, color=colour, marker="D", edgecolor=style.SURFACE, lw=1.5, zorder=5)
    text, below = wording.difference(mean, objective, signed=True), (0, -11)
    axes.annotate(text, (mean, y), below, textcoords="offset points", ha="center", va="top", weight="bold", fontsize=14)


def _name_ends(axes: Axes, y: float, pair: dict[str, Any], word: str) -> None:
    """Write which strategy each side of zero favours, in its colour."""
    low, high = axes.get_xlim()
    a, b = (f"{wording.STRATEGY[pair[side]]}{word}" for side in "ab")
    axes.text(low, y, f"{_LEFT} {a}", va="top", color=style.STRATEGY[pair["a"]])
    axes.text(high, y, f"{b} {_RIGHT}", va="top", ha="right", color=style.STRATEGY[pair["b"]])


def _describe(pair: dict[str, Any], objective: str) -> str:
    """Write a row of the figure in words."""
    mean = wording.difference(pair["difference"], objective, signed=True)
    names = f"{wording.capital(wording.STRATEGY[pair['b']])} minus {wording.STRATEGY[pair['a']]}"
    return f"{names}: {mean} {wording.unit(objective)}, 95 % interval: {wording.interval(pair['ci95'], objective)}."
