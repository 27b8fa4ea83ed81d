"""The sections on the winners with one choice changed at a time: what another choice would have cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.analysis import wording
from harness.analysis.explored import ChangeResult
from harness.analysis.study_data import StudyData
from harness.analysis.wording import config_text
from harness.config.parameters import label
from harness.report import style
from harness.report.axes import difference_axis, row_name
from harness.report.section import Section, Table
from harness.report.style import Picture, drawing, picture


def controlled_sections(data: StudyData) -> list[Section]:
    """Make a section for each strategy whose winner was tried with one choice changed at a time."""
    found = data.changed
    strategies = dict.fromkeys(one.strategy for one in found)
    return [_controlled([one for one in found if one.strategy == name], data.study.objective) for name in strategies]


def change_text(one: ChangeResult) -> str:
    """Write a change: `unfreeze depth (stages) 2 instead of 3`."""
    name = "" if one.parameter in ("backbone", "weights", "batchnorm") else f"{label(one.parameter)} "
    prefix = "BatchNorm " if one.parameter == "batchnorm" else name
    return f"{prefix}{config_text(one.parameter, one.value)} instead of {config_text(one.parameter, one.before)}"


def _controlled(found: Sequence[ChangeResult], objective: str) -> Section:
    strategy = found[0].strategy
    shown = [(change_text(one), one) for one in found if one.completed]
    seeds = max((len(one.differences) for _, one in shown), default=0)
    lost = [
        [change_text(one), wording.listed(wording.STATE[s] for s in dict.fromkeys(one.ended))]
        for one in found
        if not one.completed
    ]
    note = (
        f"One choice of the winner changed, everything else held: the same {wording.count(seeds, 'seed')}, splits and "
        "random numbers as its confirmation. Circles: seeds. Filled: a difference that is not chance (Holm's "
        "correction over these rows); their spread over seeds is taken from all rows together. Validation images, not "
        "test."
    )
    return Section(
        f"controlled-{strategy}",
        controlled_heading(found, objective),
        [changes(shown, strategy, objective)] if shown else [],
        note,
        table=Table("Changes that did not complete", [("change", False), ("ended", False)], lost) if lost else None,
        exploratory=True,
    )


def controlled_heading(found: Sequence[ChangeResult], objective: str) -> str:
    """Say what another choice would have cost and name the worst one, or say that no difference is clear."""
    who = wording.capital(wording.STRATEGY[found[0].strategy])
    complete = [one for one in found if one.completed]
    worse = [one for one in complete if one.clear and one.mean < 0]
    better = [one for one in complete if one.clear and one.mean > 0]
    if better:
        gain = wording.difference(max(one.mean for one in better), objective)
        return (
            f"{who}: the search missed a better choice; {change_text(better[0])} gains {gain} {wording.unit(objective)}"
        )
    if worse:
        cost = wording.difference(-worse[-1].mean, objective)
        others = len(complete) - len(worse)
        plain = f"{wording.count(others, 'other choice')} {'makes' if others == 1 else 'make'} no clear difference"
        worst = f"{change_text(worse[-1])} would have cost {cost} {wording.unit(objective)}"
        return f"{who}: {worst}; {plain}" if others > 0 else f"{who}: {worst}"
    return f"{who}: none of {wording.count(len(complete), 'other choice')} makes a clear difference"


def changes(rows: Sequence[tuple[str, ChangeResult]], strategy: str, objective: str) -> Picture:
    """Draw a row for each change: the difference from the winner at every seed, the mean and its 95 % interval.

    Args:
        rows: the change in words and its result, in the order of drawing.
    """
    colour = style.STRATEGY[strategy]
    with drawing(560, 76 + 46 * len(rows)) as (figure, axes):
        axes.axvline(0, color=style.MUTED, lw=1, zorder=1)
        for row, (label, one) in enumerate(rows):
            y = -row
            row_name(axes, y + 0.32, label, va="center", fontsize=11)
            axes.plot(one.ci95, [y, y], color=colour, lw=2.6, zorder=3)
            heights = y - 0.13 - 0.07 * (np.arange(len(one.differences)) % 2)
            axes.scatter(one.differences, heights, s=22, facecolor=style.SURFACE, edgecolor=colour, lw=1.1, zorder=4)
            face = colour if one.clear else style.SURFACE
            axes.scatter(
                [one.mean], [y], s=80, marker=style.MARKER[strategy], color=face, edgecolor=colour, lw=1.5, zorder=5
            )
        axes.set(ylim=(-len(rows) + 0.45, 0.62), yticks=[])
        axes.margins(x=0.08)
        axes.grid(visible=False, axis="y")
        axes.set_title(
            f"{wording.capital(wording.STRATEGY[strategy])}: another choice instead", color=colour, weight="bold"
        )
        difference_axis(axes, objective)
        axes.set_xlabel(f"change on validation, {wording.unit(objective).removeprefix('of ')}")
        described = "; ".join(f"{label} {wording.difference(one.mean, objective, signed=True)}" for label, one in rows)
        return picture(
            figure, f"controlled-{strategy}", f"Change of the winner's validation score by one choice: {described}."
        )
