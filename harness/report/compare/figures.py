"""Figures of several studies with a row for each study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from harness.analysis import wording
from harness.analysis.comparison import StudySummary
from harness.report import style
from harness.report.axes import difference_axis
from harness.report.style import Picture, drawing, picture

OUTCOME = {
    "fine_tuning": "fine-tuning better",
    "feature_extraction": "feature extraction better",
    "equal": "practically equal",
    "undecided": "undecided",
    None: "no verdict",
}
_NARROW = 500  # CSS pixels; in narrower figures names and numbers are written above their row
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 18000, 36000, 86400, 259200)  # s
_LEFT, _RIGHT = "\N{LEFTWARDS ARROW}", "\N{RIGHTWARDS ARROW}"


def forest(entries: Sequence[StudySummary], objective: str, width: int = 1000) -> Picture:
    """Draw fine-tuning minus feature extraction on test: mean, 95 % interval and equivalence zone of each study.

    A mark is filled if the study decides for a strategy, and hollow otherwise. Studies keep their order; a study
    without a verdict has an empty row.

    Args:
        entries: studies of this one objective.
        width: CSS pixels.
    """
    verdicts = [entry.verdict for entry in entries if entry.verdict]
    ends = [abs(end) for verdict in verdicts for end in verdict["ci95"]]
    reach = 1.1 * max([*ends, *(1.6 * entry.equivalence for entry in entries), 1e-6])
    with drawing(width, 92 + _height(width) * len(entries)) as (figure, axes):
        axes.set(xlim=(-reach, reach))
        _rows(axes, len(entries), width)
        axes.axvline(0, color=style.MUTED, lw=1, zorder=1)
        for row, entry in enumerate(entries):
            zone, half = entry.equivalence, 0.3
            axes.add_patch(Rectangle((-zone, -row - half), 2 * zone, 2 * half, facecolor=style.ZONE, lw=0, zorder=0))
            _write_label(axes, -row, _named(entry, width), _number(entry, objective), OUTCOME[entry.outcome], width)
            if entry.verdict:
                _interval(axes, -row, entry.verdict, objective)
        word = "" if width < _NARROW else " better"
        for x, text, strategy, side in (
            (-reach, f"{_LEFT} {wording.STRATEGY['feature_extraction']}{word}", "feature_extraction", "left"),
            (reach, f"{wording.STRATEGY['fine_tuning']}{word} {_RIGHT}", "fine_tuning", "right"),
        ):
            above = axes.get_xaxis_transform()
            axes.text(x, 1.01, text, transform=above, ha=side, va="bottom", color=style.STRATEGY[strategy])
        difference_axis(axes, objective)
        axes.set_xlabel(f"difference on test, {wording.unit(objective).removeprefix('of ')}")
        rows = " ".join(f"{_describe(entry, objective)}." for entry in entries)
        return picture(figure, f"forest-{objective}-{width}", f"Fine-tuning minus feature extraction by study. {rows}")


def costs(entries: Sequence[StudySummary], width: int = 1000) -> Picture | None:
    """Draw the device seconds of one training of each strategy, on a logarithmic axis; None if no study has both."""
    known = [entry for entry in entries if entry.cost_ratio]
    if not known:
        return None
    sides = ("feature_extraction", "fine_tuning")
    seconds = {entry.name: [float(entry.of(side, "seconds_alone")) for side in sides] for entry in known}
    low, high = min(map(min, seconds.values())) / 1.5, max(map(max, seconds.values())) * 1.5
    with drawing(width, 92 + _height(width) * len(known)) as (figure, axes):
        axes.set(xscale="log", xlim=(low, high))
        _rows(axes, len(known), width)
        for row, entry in enumerate(known):
            pair = seconds[entry.name]
            axes.plot(pair, [-row, -row], color=style.LINE, lw=3, zorder=2)
            for side, x in zip(sides, pair, strict=True):
                colour, marker = style.STRATEGY[side], style.MARKER[side]
                axes.scatter([x], [-row], s=90, color=colour, marker=marker, edgecolor=style.SURFACE, lw=1.2, zorder=4)
            each = " and ".join(wording.duration(x) for x in pair)
            _write_label(axes, -row, _named(entry, width), wording.times(entry.cost_ratio or 0.0), each, width)
        for x, side, at, mark in (
            (0.0, sides[0], "left", "\N{BLACK CIRCLE}"),
            (1.0, sides[1], "right", "\N{BLACK DIAMOND}"),
        ):
            name = f"{mark} {wording.STRATEGY[side]}"
            axes.text(x, 1.01, name, transform=axes.transAxes, ha=at, va="bottom", color=style.STRATEGY[side])
        ticks = [tick for tick in _TICKS if low <= tick <= high]
        every = max(1, -(-len(ticks) // (4 if width < _NARROW else 8)))
        axes.set_xticks(ticks[::every], [wording.duration(tick) for tick in ticks[::every]])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("device seconds of one training, alone")
        described = "; ".join(
            f"{entry.name}: feature extraction {wording.duration(seconds[entry.name][0])}, "
            f"fine-tuning {wording.duration(seconds[entry.name][1])}"
            for entry in known
        )
        return picture(figure, f"costs-{width}", f"Device seconds of one training by study. {described}.")


def shorten(name: str, length: int) -> str:
    """Shorten a long name in its middle, because the names of one project often begin alike."""
    if len(name) <= length:
        return name
    tail = length // 2
    return f"{name[: length - tail - 1]}\N{HORIZONTAL ELLIPSIS}{name[-tail:]}"


def _height(width: int) -> int:
    return 66 if width < _NARROW else 50


def _rows(axes: Axes, rows: int, width: int) -> None:
    axes.set(ylim=(-rows + 0.45, 0.85 if width < _NARROW else 0.55), yticks=[])
    axes.grid(visible=False)


def _write_label(axes: Axes, y: float, name: str, number: str, word: str, width: int) -> None:
    """Write the name and the number of a row: beside the axes, or above the row if the figure is narrow."""
    beside = axes.get_yaxis_transform()
    if width < _NARROW:
        axes.text(0, y + 0.36, name, transform=beside, va="bottom")
        axes.text(1, y + 0.36, number or word, transform=beside, va="bottom", ha="right", weight="bold")
        return
    axes.text(-0.015, y, name, transform=beside, va="center", ha="right")
    if number:
        axes.text(1.015, y + 0.03, number, transform=beside, va="bottom", weight="bold")
    axes.text(1.015, y - 0.03 if number else y, word, transform=beside, va="top" if number else "center", fontsize=11)


def _interval(axes: Axes, y: float, verdict: dict[str, Any], objective: str) -> None:
    mean, (low, high) = verdict["difference"], verdict["ci95"]
    ahead = "fine_tuning" if mean >= 0 else "feature_extraction"
    colour, decided = style.STRATEGY[ahead], verdict["outcome"] in style.STRATEGY
    axes.plot([low, high], [y, y], color=colour, lw=3, solid_capstyle="round", zorder=3)
    face, edge = (colour, style.SURFACE) if decided else (style.SURFACE, colour)
    axes.scatter([mean], [y], s=110, facecolor=face, edgecolor=edge, marker=style.MARKER[ahead], lw=1.8, zorder=5)


def _named(entry: StudySummary, width: int) -> str:
    rendered = " (rendered)" if entry.rendered else ""
    return shorten(entry.name, (24 if width < _NARROW else 40) - len(rendered)) + rendered


def _number(entry: StudySummary, objective: str) -> str:
    """Write the difference and its interval: `+2.9 (0.5 to 5.3)`; "" without a verdict."""
    if entry.verdict is None:
        return ""
    return wording.gap(entry.verdict["difference"], entry.verdict["ci95"], objective)


def _describe(entry: StudySummary, objective: str) -> str:
    """Write a row of the figure in words."""
    if entry.verdict is None:
        return f"{entry.name}: no verdict"
    ends = wording.interval(entry.verdict["ci95"], objective)
    mean = wording.difference(entry.verdict["difference"], objective, signed=True)
    return (
        f"{entry.name}: {mean} {wording.unit(objective)}, 95 % interval: {ends}, {OUTCOME[entry.outcome]}; "
        f"± {wording.difference(entry.equivalence, objective)} counts as equal"
    )
