"""The section on the winners trained on smaller shares of the training images."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from harness.analysis import wording
from harness.analysis.explored import ConditionResult
from harness.analysis.study_data import StudyData
from harness.report import style
from harness.report.axes import difference_axis, named_ends, scale, score_axis
from harness.report.section import Section
from harness.report.sections.paired_table import paired_table
from harness.report.style import Picture, drawing, picture


def size_section(data: StudyData) -> Section | None:
    """Show the winners trained on fewer images; None if no share was tried."""
    points = data.sizes
    return _sizes(points, data) if points else None


def _sizes(points: Sequence[ConditionResult], data: StudyData) -> Section:
    objective, zone = data.study.objective, data.study.confirmation.equivalence
    pictures = [by_size(points, objective)]
    if sum(point.pair is not None for point in points) > 1:
        pictures.append(gain_by_size(points, zone, objective))
    note = (
        "Both winners trained again on nested shares of the training images, class by class, with the same seeds and "
        "epochs (so fewer steps), and scored on the test split. Bands and bars: 95 % intervals; grey: differences that "
        "count as equal. Shares below all images are read at Holm's levels."
    )
    return Section(
        "data-sizes", sizes_heading(points), pictures, note, table=paired_table(points, objective), exploratory=True
    )


def sizes_heading(points: Sequence[ConditionResult]) -> str:
    """Say from how many training images on fine-tuning is better, by the intervals only."""
    pairs = [(max(p.train_images.values()), p.pair.outcome) for p in points if p.pair is not None]
    if not pairs:
        return "How the score grows with the training images"
    outcomes = [outcome for _, outcome in pairs]
    if all(outcome == "better" for outcome in outcomes):
        return f"Fine-tuning pays at every size tried, from {pairs[0][0]:,} training images on"
    if all(outcome == "worse" for outcome in outcomes):
        return "Feature extraction is better at every size tried"
    if outcomes[-1] == "better":
        first = next(i for i in range(len(pairs)) if all(outcome == "better" for outcome in outcomes[i:]))
        small, large = pairs[first - 1][0], pairs[first][0]
        return f"Fine-tuning clearly pays from {large:,} training images on; with {small:,} it does not yet"
    if "better" not in outcomes and "worse" in outcomes:
        last = max(i for i, outcome in enumerate(outcomes) if outcome == "worse")
        return f"Feature extraction is better up to {pairs[last][0]:,} training images, and no side clearly beyond"
    if "better" in outcomes or "worse" in outcomes:
        return "Which side is better changes with the number of training images, without a clear crossover"
    return "No number of training images tried shows a clear difference"


def by_size(points: Sequence[ConditionResult], objective: str) -> Picture:
    """Draw the test score against the number of training images, with the 95 % interval of each strategy."""
    with drawing(440, 300) as (figure, axes):
        for strategy in style.STRATEGY:
            own = [point for point in points if strategy in point.scores]
            if own:
                x = [point.train_images[strategy] for point in own]
                found = [point.scores[strategy] for point in own]
                low, high = zip(*(one.interval() for one in found), strict=True)
                colour = style.STRATEGY[strategy]
                axes.fill_between(x, low, high, color=colour, alpha=0.16, lw=0)
                axes.plot(x, [one.mean for one in found], color=colour, lw=2, marker=style.MARKER[strategy], ms=7)
        _image_axis(axes, points)
        named_ends(axes, {strategy: found.mean for strategy, found in points[-1].scores.items()})
        axes.set_title(f"test {scale(objective)}")
        score_axis(axes.yaxis, objective)
        described = "; ".join(
            f"{max(point.train_images.values()):,} images: "
            + ", ".join(f"{wording.STRATEGY[s]} {wording.level(e.mean, objective)}" for s, e in point.scores.items())
            for point in points
        )
        return picture(figure, "by-size", f"Test score by number of training images. {described}.")


def gain_by_size(points: Sequence[ConditionResult], zone: float, objective: str) -> Picture:
    """Draw fine-tuning's gain over feature extraction against the number of training images."""
    colour = style.STRATEGY["fine_tuning"]
    with drawing(440, 300) as (figure, axes):
        axes.axhspan(-zone, zone, color=style.ZONE, lw=0, zorder=0)
        axes.axhline(0, color=style.MUTED, lw=1, zorder=1)
        pairs = [(max(point.train_images.values()), point.pair) for point in points if point.pair is not None]
        for x, pair in pairs:
            axes.plot([x, x], pair.ci95, color=colour, lw=2.6, zorder=3)
            clear = pair.outcome in ("better", "worse")
            axes.scatter(
                [x],
                [pair.difference],
                s=80,
                marker="D",
                color=colour if clear else style.SURFACE,
                edgecolor=colour,
                lw=1.5,
                zorder=4,
            )
        axes.plot([x for x, _ in pairs], [pair.difference for _, pair in pairs], color=colour, lw=1, alpha=0.5)
        _image_axis(axes, points)
        axes.set_title(f"fine-tuning's gain on test, {wording.unit(objective).removeprefix('of ')}")
        difference_axis(axes, objective, "y")
        described = "; ".join(
            f"{x:,} images {wording.difference(p.difference, objective, signed=True)}" for x, p in pairs
        )
        return picture(figure, "gain-by-size", f"Fine-tuning minus feature extraction by training images: {described}.")


def _image_axis(axes: Axes, points: Sequence[ConditionResult]) -> None:
    counts = [max(point.train_images.values()) for point in points]
    axes.set(xscale="log", xlabel="training images", ylabel="")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.set_xticks([], minor=True)
    axes.margins(x=0.12)
