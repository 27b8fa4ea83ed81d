"""Figures of what was tried after the verdict."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from harness.report import ink, wording
from harness.report.axes import NEARER, difference_axis, named_ends, row_name, scale, score_axis
from harness.report.explored import Answered, Changed
from harness.report.ink import Picture, drawing, picture


def changes(rows: Sequence[tuple[str, Changed]], strategy: str, objective: str) -> Picture:
    """One row a change: every seed's difference from the winner, the mean and its 95 % interval.

    Args:
        rows: what was changed, in words, and its differences; drawn in this order.
    """
    colour = ink.STRATEGY[strategy]
    with drawing(560, 76 + 46 * len(rows)) as (figure, axes):
        axes.axvline(0, color=ink.MUTED, lw=1, zorder=1)
        for row, (label, one) in enumerate(rows):
            y = -row
            row_name(axes, y + 0.32, label, va="center", fontsize=11)
            axes.plot(one.ci95, [y, y], color=colour, lw=2.6, zorder=3)
            heights = y - 0.13 - 0.07 * (np.arange(len(one.differences)) % 2)
            axes.scatter(one.differences, heights, s=22, facecolor=ink.SURFACE, edgecolor=colour, lw=1.1, zorder=4)
            face = colour if one.clear else ink.SURFACE
            axes.scatter(
                [one.mean], [y], s=80, marker=ink.MARKER[strategy], color=face, edgecolor=colour, lw=1.5, zorder=5
            )
        axes.set(ylim=(-len(rows) + 0.45, 0.62), yticks=[])
        axes.margins(x=0.08)
        axes.grid(visible=False, axis="y")
        axes.set_title(
            f"{wording.capital(wording.STRATEGY[strategy])}: another choice instead", color=colour, weight="bold"
        )
        difference_axis(axes, objective)
        axes.set_xlabel(f"change on validation, {wording.unit(objective).removeprefix('of ')}")
        said = "; ".join(f"{label} {wording.difference(one.mean, objective, signed=True)}" for label, one in rows)
        return picture(
            figure, f"controlled-{strategy}", f"Change of the winner's validation score by one choice: {said}."
        )


def by_size(points: Sequence[Answered], objective: str) -> Picture:
    """Test score against training images, with the 95 % interval of each strategy."""
    with drawing(440, 300) as (figure, axes):
        for strategy in ink.STRATEGY:
            own = [point for point in points if strategy in point.scores]
            if own:
                x = [point.train_images[strategy] for point in own]
                found = [point.scores[strategy] for point in own]
                low, high = zip(*(one.interval() for one in found), strict=True)
                colour = ink.STRATEGY[strategy]
                axes.fill_between(x, low, high, color=colour, alpha=0.16, lw=0)
                axes.plot(x, [one.mean for one in found], color=colour, lw=2, marker=ink.MARKER[strategy], ms=7)
        _image_axis(axes, points)
        named_ends(axes, {strategy: found.mean for strategy, found in points[-1].scores.items()})
        axes.set_title(f"test {scale(objective)}")
        score_axis(axes.yaxis, objective)
        said = "; ".join(
            f"{max(point.train_images.values()):,} images: "
            + ", ".join(f"{wording.STRATEGY[s]} {wording.level(e.mean, objective)}" for s, e in point.scores.items())
            for point in points
        )
        return picture(figure, "by-size", f"Test score by number of training images. {said}.")


def gain_by_size(points: Sequence[Answered], zone: float, objective: str) -> Picture:
    """What fine-tuning gains over feature extraction, against training images."""
    colour = ink.STRATEGY["fine_tuning"]
    with drawing(440, 300) as (figure, axes):
        axes.axhspan(-zone, zone, color=ink.ZONE, lw=0, zorder=0)
        axes.axhline(0, color=ink.MUTED, lw=1, zorder=1)
        pairs = [(max(point.train_images.values()), point.pair) for point in points if point.pair is not None]
        for x, pair in pairs:
            axes.plot([x, x], pair.ci95, color=colour, lw=2.6, zorder=3)
            clear = pair.outcome in ("better", "worse")
            axes.scatter([x], [pair.difference], s=80, marker="D", color=colour if clear else ink.SURFACE,
                         edgecolor=colour, lw=1.5, zorder=4)  # fmt: skip
        axes.plot([x for x, _ in pairs], [pair.difference for _, pair in pairs], color=colour, lw=1, alpha=0.5)
        _image_axis(axes, points)
        axes.set_title(f"fine-tuning's gain on test, {wording.unit(objective).removeprefix('of ')}")
        difference_axis(axes, objective, "y")
        said = "; ".join(f"{x:,} images {wording.difference(p.difference, objective, signed=True)}" for x, p in pairs)
        return picture(figure, "gain-by-size", f"Fine-tuning minus feature extraction by training images: {said}.")


def under_shift(points: Sequence[Answered], objective: str) -> Picture:
    """Test score of the winners on the images as they are and on each shifted copy, with 95 % intervals."""
    strategies = [s for s in ink.STRATEGY if any(s in point.scores for point in points)]
    with drawing(560, 70 + (16 + 20 * len(strategies)) * len(points)) as (figure, axes):
        y = 0.0
        for point in points:
            row_name(axes, y, wording.SHIFT[point.name], va="center", weight="normal" if point.name else "bold")
            y += NEARER
            for strategy in strategies:
                y -= 1
                if strategy in point.scores:
                    found, colour = point.scores[strategy], ink.STRATEGY[strategy]
                    axes.plot(found.interval(), [y, y], color=colour, lw=2.6)
                    axes.scatter([found.mean], [y], s=64, color=colour, marker=ink.MARKER[strategy],
                                 edgecolor=ink.SURFACE, lw=1, zorder=4)  # fmt: skip
            y -= 1.1 + NEARER
        axes.set(yticks=[], ylim=(y + 0.5 + NEARER, 0.7), xlabel="test " + scale(objective))
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.06)
        score_axis(axes.xaxis, objective)
        said = "; ".join(
            f"{wording.SHIFT[point.name]}: "
            + ", ".join(f"{wording.STRATEGY[s]} {wording.level(e.mean, objective)}" for s, e in point.scores.items())
            for point in points
        )
        return picture(figure, "under-shift", f"Test score on shifted copies of the test images. {said}.")


def _image_axis(axes: Axes, points: Sequence[Answered]) -> None:
    counts = [max(point.train_images.values()) for point in points]
    axes.set(xscale="log", xlabel="training images", ylabel="")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.set_xticks([], minor=True)
    axes.margins(x=0.12)
