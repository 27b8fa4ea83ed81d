"""The sections on the search's parameters: the score of every complete trial against one parameter, or two.

The trials differ in many parameters at once, so these figures show where good scores lie, not what causes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from harness.analysis import trends, wording
from harness.analysis.study_data import StudyData
from harness.analysis.trends import FEWEST, goodness
from harness.config.backbone_costs import cost_if_known
from harness.config.parameters import PARAMETERS
from harness.config.trial import DEPTH_MAX
from harness.report import style
from harness.report.axes import NEARER, lower, row_name, scale, score_axis
from harness.report.section import Section
from harness.report.style import Picture, drawing, picture

OWN_SECTION = ("unfreeze_depth", "backbone", "batchnorm", "head_lr", "backbone_lr")
_SEARCH_NOTE = (
    "Each mark is one complete trial, each bar a median. The trials differ in other values too: this shows where good "
    "scores were found, not what caused them."
)


def depth_section(data: StudyData) -> Section | None:
    """Show the score by depth; with a single backbone also the share of it that each depth trains."""
    complete, objective = data.complete, data.study.objective
    if complete["unfreeze_depth"].nunique() < 2:
        return None
    heading = trends.of_number(complete, "unfreeze_depth", "unfreeze depth", "Deeper unfreezing")
    label, notes = "stages that train (0 is feature extraction)", None
    used = complete["backbone"].unique()
    known = cost_if_known(str(used[0])) if len(used) == 1 and _from_head(complete) else None
    if known is not None:
        notes = {depth: wording.share(known.parameter_share(depth)) for depth in range(DEPTH_MAX + 1)}
        label = f"stages that train, and their share of {used[0]}'s parameters"
    shown = by_number(complete, "unfreeze_depth", objective, label, notes)
    return Section("depth", heading, [shown], _SEARCH_NOTE, _drawn(data))


def backbone_section(data: StudyData) -> Section | None:
    """Show the score by backbone; None with a single backbone."""
    return _by_choice(data, "backbone", "backbone")


def batchnorm_section(data: StudyData) -> Section | None:
    """Show the score by BatchNorm policy; None with a single policy."""
    return _by_choice(data, "batchnorm", "BatchNorm policy")


def rate_section(data: StudyData) -> Section | None:
    """Show the score by the learning rates; None if they were not searched."""
    complete, objective, drawn = data.complete, data.study.objective, _drawn(data)
    complete = complete[complete["head_solver"] == "adamw"]  # a logistic head has no learning rate
    if complete["head_lr"].nunique() < 2:
        return None
    pictures = [by_value(complete, "head_lr", objective, "head learning rate", log=True)]
    note = "First: every complete trial that has a learning rate."
    for strategy in drawn:
        part = complete[complete["strategy"] == strategy].dropna(subset=["backbone_lr"])
        if part["backbone_lr"].nunique() > 2:
            pictures.append(rate_map(part, strategy, objective))
    if len(pictures) > 1:
        note += " Then: both rates together, the strongest colour for the best score, the best trial ringed."
    found = rate_heading(complete)
    if found:
        note += " Near: the geometric mean over a strategy's best quarter of trials, so not the single best one."
    return Section("rates", found or "Learning rates", pictures, note, drawn)


def other_sections(data: StudyData) -> list[Section]:
    """Show the other parameters that took several values: a section for each with a finding, one for all others."""
    complete, objective, drawn = data.complete, data.study.objective, _drawn(data)
    made, without_finding = [], []
    for name, parameter in PARAMETERS.items():
        if name in OWN_SECTION or complete[name].nunique() < 2:
            continue
        label = parameter.label
        if parameter.kind == "choice":
            found, shown = trends.choice(complete, name), by_choice(complete, name, objective, label)
        else:
            found = trends.trend(complete, name, "higher values")
            shown = by_value(complete, name, objective, label)
        if found:
            made.append(Section(name, f"{wording.capital(label)}: {found}", [shown], _SEARCH_NOTE, drawn))
        else:
            without_finding.append((label, shown))
    if without_finding:
        names = wording.listed([label for label, _ in without_finding])
        heading = f"No clear effect of {names} in {wording.count(len(complete), 'trial')}"
        made.append(Section("others", heading, [shown for _, shown in without_finding], _SEARCH_NOTE, drawn))
    return made


def rate_heading(trials: pd.DataFrame) -> str | None:
    """Say at which learning rates the best quarter of the trials lies; None with too few trials."""
    parts = []
    for strategy in wording.STRATEGY:
        part = trials[trials["strategy"] == strategy].dropna(subset=["score"])
        if len(part) < FEWEST:
            continue
        top = part[goodness(part).rank(ascending=False, method="min") <= max(2, len(part) // 4)]
        head = float(np.exp(np.log(top["head_lr"]).mean()))
        text = f"{wording.STRATEGY[strategy]} near {_rough(head)}"
        if top["backbone_lr"].notna().all():
            text += f" (backbone {_rough(float(np.exp(np.log(top['backbone_lr']).mean())))})"
        parts.append(text)
    return f"Best learning rates: {wording.listed(parts)}" if parts else None


def by_number(
    trials: pd.DataFrame, column: str, objective: str, label: str, notes: Mapping[int, str] | None = None
) -> Picture:
    """Draw the score of every complete trial against a parameter of a few whole numbers, with the median of each.

    Args:
        notes: value -> text below it on the axis.
    """
    dense = len(trials) > style.DENSE
    with drawing(440, 280) as (figure, axes):
        for strategy, part in _strategies(trials):
            x = part[column].to_numpy(float) + _spread(part[column], 0.16)
            _marks(axes, x, part["score"].to_numpy(), strategy, dense)
            for value, median in _median(part, column):
                axes.plot(
                    [float(value) - 0.3, float(value) + 0.3], [median] * 2, color=style.STRATEGY[strategy], lw=2.2
                )
        axes.set(xlabel=label, ylabel="")
        axes.grid(visible=False, axis="x")
        if notes:
            axes.set_xticks(list(notes), [f"{value}\n{note}" for value, note in notes.items()])
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(f"validation {scale(objective)}")
        score_axis(axes.yaxis, objective)
        return picture(figure, f"by-{column}", _medians(trials, column, objective, label))


def by_value(trials: pd.DataFrame, column: str, objective: str, label: str, *, log: bool = False) -> Picture:
    """Draw the score of every complete trial against a parameter of real numbers.

    Args:
        log: draw the parameter on a logarithmic axis; otherwise the axis is logarithmic only for a wide range.
    """
    values = trials[column].dropna()
    log = log or bool((values > 0).all() and values.max() / values.min() > 30)
    dense = len(trials) > style.DENSE
    with drawing(360, 270) as (figure, axes):
        for strategy, part in _strategies(trials.dropna(subset=[column])):
            _marks(axes, part[column].to_numpy(float), part["score"].to_numpy(), strategy, dense)
        axes.set(xlabel=label, ylabel="")
        if log:
            axes.set(xscale="log")
            _log_axis(axes.xaxis, values)
        axes.set_title(f"validation {scale(objective)}")
        score_axis(axes.yaxis, objective)
        best = trials.sort_values("score", ascending=not lower(objective)).iloc[-1]
        described = (
            f"the best trial has {wording.rate(float(best[column]))} and scores "
            f"{wording.level(best['score'], objective)}"
        )
        return picture(figure, f"by-{column}", f"Validation score against {label}: {described}.")


def by_choice(trials: pd.DataFrame, column: str, objective: str, label: str) -> Picture:
    """Draw the score of every complete trial by a categorical parameter, with the median of each strategy and value."""
    names = list(trials.groupby(column)["score"].median().sort_values(ascending=lower(objective)).index)
    parts = _strategies(trials)
    lines, dense = len(names) + sum(part[column].nunique() for _, part in parts), len(trials) > style.DENSE
    with drawing(440, 60 + 22 * lines) as (figure, axes):
        y = 0.0
        for name in names:
            row_name(axes, y, str(name), va="center")
            y += NEARER
            for strategy, part in parts:
                scores = part.loc[part[column] == name, "score"]
                if len(scores):
                    y -= 1
                    _marks(axes, scores.to_numpy(), y + _spread(scores * 0, 0.25), strategy, dense)
                    axes.plot([scores.median()] * 2, [y - 0.42, y + 0.42], color=style.STRATEGY[strategy], lw=2.4)
            y -= 1.15 + NEARER
        axes.set(yticks=[], ylim=(y + 0.45 + NEARER, 0.6), xlabel="validation " + scale(objective))
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.06)
        axes.set_title(label, loc="left")
        score_axis(axes.xaxis, objective)
        return picture(figure, f"by-{column}", _medians(trials, column, objective, label))


def rate_map(trials: pd.DataFrame, strategy: str, objective: str) -> Picture:
    """Draw head rate against backbone rate: the stronger the colour, the better the trial; a ring around the best."""
    part = trials.dropna(subset=["backbone_lr"]).sort_values("score", ascending=not lower(objective))
    rank = part["score"].rank(pct=True, ascending=not lower(objective)).to_numpy()
    with drawing(360, 270) as (figure, axes):
        look = style.DUST if len(part) > style.DENSE else {"s": 64, "lw": 0.8, "edgecolor": style.MUTED}
        shades = [style.step(float(share) - 1e-9) for share in rank]
        axes.scatter(part["head_lr"], part["backbone_lr"], c=shades, **look)
        best = part.iloc[-1]
        axes.scatter([best["head_lr"]], [best["backbone_lr"]], s=190, facecolor="none", edgecolor=style.INK, lw=1.6)
        axes.annotate(
            wording.level(best["score"], objective),
            (best["head_lr"], best["backbone_lr"]),
            (0, 13),
            textcoords="offset points",
            ha="center",
            weight="bold",
        )
        axes.set(xscale="log", yscale="log", xlabel="head learning rate")
        axes.margins(0.12)
        _log_axis(axes.xaxis, part["head_lr"])
        _log_axis(axes.yaxis, part["backbone_lr"])
        axes.set_title("backbone learning rate")
        described = (
            f"the best of {len(part)} trials has head {wording.rate(best['head_lr'])} and backbone "
            f"{wording.rate(best['backbone_lr'])} and scores {wording.level(best['score'], objective)}"
        )
        return picture(figure, f"rates-{strategy}", f"{wording.STRATEGY[strategy]}, learning rates: {described}.")


def _by_choice(data: StudyData, column: str, name: str) -> Section | None:
    complete, objective = data.complete, data.study.objective
    if complete[column].nunique() < 2:
        return None
    heading = trends.of_choice(complete, column, name)
    return Section(column, heading, [by_choice(complete, column, objective, name)], _SEARCH_NOTE, _drawn(data))


def _from_head(complete: pd.DataFrame) -> bool:
    """Return whether every trial unfroze the last stages first."""
    return bool((complete["unfreeze_from"] == "head").all())


def _drawn(data: StudyData) -> list[str]:
    """Return the strategies that have a complete trial."""
    return [name for name in wording.STRATEGY if (data.complete["strategy"] == name).any()]


def _strategies(trials: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return the parts of the table by strategy, in the order of the palette."""
    return [(name, trials[trials["strategy"] == name]) for name in style.STRATEGY if (trials["strategy"] == name).any()]


def _marks(axes: Axes, x: NDArray[Any], y: NDArray[Any], strategy: str, dense: bool) -> None:
    """Draw a mark for each trial in the strategy's colour and shape."""
    look = style.DUST if dense else {"s": 42, "lw": 0.6, "alpha": 0.75, "edgecolor": style.SURFACE}
    axes.scatter(x, y, color=style.STRATEGY[strategy], marker=style.MARKER[strategy], **look)


def _spread(values: pd.Series[Any], reach: float) -> NDArray[np.float64]:
    """Return offsets that keep equal values apart: multiples of the golden ratio, the same on every run."""
    order = values.groupby(values).cumcount().to_numpy()
    offsets = np.asarray((0.5 + order * 0.6180339887) % 1, np.float64)
    return (offsets - 0.5) * 2 * reach


def _median(part: pd.DataFrame, column: str) -> list[tuple[Any, float]]:
    """Return the median score of each value of a parameter."""
    return [(value, float(score)) for value, score in part.groupby(column)["score"].median().items()]


def _medians(trials: pd.DataFrame, column: str, objective: str, label: str) -> str:
    """Write the medians in words."""
    parts = []
    for strategy, part in _strategies(trials):
        medians = ", ".join(f"{value}: {wording.level(score, objective)}" for value, score in _median(part, column))
        parts.append(f"{wording.STRATEGY[strategy]} {medians}")
    return f"Median validation score by {label}. {wording.capital('; '.join(parts))}."


def _log_axis(axis: Any, values: pd.Series[Any]) -> None:
    """Set ticks at powers of ten."""
    low, high = float(values.min()), float(values.max())
    exponents = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    every = max(1, len(exponents) // 6)
    axis.set_ticks([10.0**e for e in exponents][::every], [f"1e{e}" for e in exponents][::every])
    axis.set_ticks([], minor=True)


def _rough(value: float) -> str:
    """Write one significant digit: a good rate is not known more precisely."""
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}".replace("-", wording.MINUS)  # a browser may break the line after a hyphen
