"""The section on the winners' scores on shifted copies of the test images."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis import wording
from harness.analysis.explored import ConditionResult
from harness.analysis.study_data import StudyData
from harness.report import style
from harness.report.axes import NEARER, row_name, scale, score_axis
from harness.report.section import Section
from harness.report.sections.paired_table import paired_table
from harness.report.style import Picture, drawing, picture
from harness.results.metrics import sign_of


def shift_section(data: StudyData) -> Section | None:
    """Show the winners on shifted test images; None if no shift was tried."""
    points = data.shifts
    return _shifts(points, data.study.objective) if points else None


def _shifts(points: Sequence[ConditionResult], objective: str) -> Section:
    note = (
        "The confirmed winners on copies of the test images: blurred, with noise, dimmer, stained otherwise, saved as "
        "a small JPEG. One strength each; no model was trained for it. Bars: 95 % intervals. Differences under a shift "
        "are read at Holm's levels."
    )
    legend = [s for s in wording.STRATEGY if any(s in point.scores for point in points)]
    return Section(
        "shifts",
        shifts_heading(points, objective),
        [under_shift(points, objective)],
        note,
        legend,
        table=paired_table(points, objective),
        exploratory=True,
    )


def shifts_heading(points: Sequence[ConditionResult], objective: str) -> str:
    """Say which strategy is better on shifted images, by the intervals; otherwise name the shift that costs most."""
    base, *rest = points
    compared = [(wording.SHIFT[point.name], point.pair) for point in rest if point.pair is not None]
    ahead = [name for name, pair in compared if pair.outcome == "better"]
    behind = [name for name, pair in compared if pair.outcome == "worse"]
    if ahead and not behind:
        return (
            f"On shifted images fine-tuning is better under {wording.listed(ahead)} ({len(ahead)} of {len(compared)})"
        )
    if behind and not ahead:
        names = f"{wording.listed(behind)} ({len(behind)} of {len(compared)})"
        return f"On shifted images feature extraction is better under {names}"
    if ahead and behind:
        return (
            f"Which side stands shifts better depends on the shift: fine-tuning under {wording.listed(ahead)}, "
            f"feature extraction under {wording.listed(behind)}"
        )
    sign = sign_of(objective)
    drops = [
        (sign * (base.scores[s].mean - found.mean), s, wording.SHIFT[point.name])
        for point in rest
        for s, found in point.scores.items()
        if s in base.scores
    ]
    most, strategy, shift = max(drops)
    if most <= 0:
        return "Neither side clearly stands shifts better, and no shift costs anything"
    cost = f"{wording.difference(most, objective)} {wording.unit(objective)} in {wording.STRATEGY[strategy]}"
    return f"Neither side clearly stands shifts better; {shift} costs most, {cost}"


def under_shift(points: Sequence[ConditionResult], objective: str) -> Picture:
    """Draw the winners' test scores on the unchanged images and on each shifted copy, with 95 % intervals."""
    strategies = [s for s in style.STRATEGY if any(s in point.scores for point in points)]
    with drawing(560, 70 + (16 + 20 * len(strategies)) * len(points)) as (figure, axes):
        y = 0.0
        for point in points:
            row_name(axes, y, wording.SHIFT[point.name], va="center", weight="normal" if point.name else "bold")
            y += NEARER
            for strategy in strategies:
                y -= 1
                if strategy in point.scores:
                    found, colour = point.scores[strategy], style.STRATEGY[strategy]
                    axes.plot(found.interval(), [y, y], color=colour, lw=2.6)
                    axes.scatter(
                        [found.mean],
                        [y],
                        s=64,
                        color=colour,
                        marker=style.MARKER[strategy],
                        edgecolor=style.SURFACE,
                        lw=1,
                        zorder=4,
                    )
            y -= 1.1 + NEARER
        axes.set(yticks=[], ylim=(y + 0.5 + NEARER, 0.7), xlabel="test " + scale(objective))
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.06)
        score_axis(axes.xaxis, objective)
        described = "; ".join(
            f"{wording.SHIFT[point.name]}: "
            + ", ".join(f"{wording.STRATEGY[s]} {wording.level(e.mean, objective)}" for s, e in point.scores.items())
            for point in points
        )
        return picture(figure, "under-shift", f"Test score on shifted copies of the test images. {described}.")
