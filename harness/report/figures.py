"""The page's figures. Each takes tidy values, decides what to show, draws, and says in words what it shows.

Strategies have one colour and one marker everywhere; what is drawn is labelled where it is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from harness.report import ink, wording
from harness.report.axes import difference_axis, row_name, scale, score_axis
from harness.report.ink import Picture, drawing, picture

ROW = 112  # height of one comparison, in CSS pixels
CURVES_AT_MOST = 120  # single lines; more are drawn as a band
NUMBERS_AT_MOST = 16  # classes; a larger confusion matrix has no room for numbers


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
        axes.axvspan(-equivalence, equivalence, color=ink.ZONE, lw=0, zorder=0)
        axes.axvline(0, color=ink.MUTED, lw=1, zorder=1)
        axes.set(xlim=(-reach, reach), ylim=(-len(pairs) + 0.5, 0.5), yticks=[])
        for row, pair in enumerate(pairs):
            _difference_row(axes, -row, pair, each_seed.get((pair["a"], pair["b"]), ()), objective)
            _ends(axes, -row + 0.48, pair, "" if narrow else " better")
        zone = f"\u00b1 {wording.difference(equivalence, objective)} counts as equal"
        above = axes.get_xaxis_transform()
        axes.text(0, 1.02, zone, transform=above, ha="center", va="bottom", color=ink.MUTED, fontsize=11)
        axes.grid(visible=False)
        difference_axis(axes, objective)
        axes.set_xlabel(f"difference on test, {wording.unit(objective).removeprefix('of ')}")
        said = " ".join(_told(pair, objective) for pair in pairs)
        return picture(figure, f"differences{width}", f"Paired differences on the test split. {said}")


_LEFT, _RIGHT = "\N{LEFTWARDS ARROW}", "\N{RIGHTWARDS ARROW}"


def _told(pair: dict[str, Any], objective: str) -> str:
    low, high = (wording.difference(end, objective) for end in pair["ci95"])
    mean = wording.difference(pair["difference"], objective, signed=True)
    names = f"{wording.capital(wording.STRATEGY[pair['b']])} minus {wording.STRATEGY[pair['a']]}"
    return f"{names}: {mean} {wording.unit(objective)}, 95 % interval {low} to {high}."


def _difference_row(axes: Axes, y: float, pair: dict[str, Any], seeds: Sequence[float], objective: str) -> None:
    mean, (low, high) = pair["difference"], pair["ci95"]
    colour = ink.STRATEGY[pair["b"] if mean >= 0 else pair["a"]]
    y -= 0.1
    axes.plot([low, high], [y, y], color=colour, lw=3, solid_capstyle="round", zorder=3)
    heights = y + 0.15 + 0.07 * (np.arange(len(seeds)) % 3)  # one above the other: seeds may agree
    axes.scatter(seeds, heights, s=30, facecolor=ink.SURFACE, edgecolor=colour, lw=1.4, zorder=4)
    axes.scatter([mean], [y], s=120, color=colour, marker="D", edgecolor=ink.SURFACE, lw=1.5, zorder=5)
    text, below = wording.difference(mean, objective, signed=True), (0, -11)
    axes.annotate(text, (mean, y), below, textcoords="offset points", ha="center", va="top", weight="bold", fontsize=14)


def _ends(axes: Axes, y: float, pair: dict[str, Any], word: str) -> None:
    """Which strategy each side of zero favours, in its colour."""
    low, high = axes.get_xlim()
    a, b = (f"{wording.STRATEGY[pair[side]]}{word}" for side in "ab")
    axes.text(low, y, f"{_LEFT} {a}", va="top", color=ink.STRATEGY[pair["a"]])
    axes.text(high, y, f"{b} {_RIGHT}", va="top", ha="right", color=ink.STRATEGY[pair["b"]])


def side_by_side(rows: Sequence[dict[str, Any]], objective: str) -> Picture:
    """Test score of each strategy's winner with its interval, its default, and its best validation score.

    Args:
        rows: `strategy`, `test_mean`, `test_ci95`, `default_test_mean`, `best_validation`; None where not known.
    """
    with drawing(460, 74 + 62 * len(rows)) as (figure, axes):
        for row, values in enumerate(rows):
            colour = ink.STRATEGY[values["strategy"]]
            y = -row
            name = wording.capital(wording.STRATEGY[values["strategy"]])
            row_name(axes, y + 0.3, name, weight="bold", color=colour)
            if values["test_ci95"]:
                axes.plot(values["test_ci95"], [y, y], color=colour, lw=3, zorder=2)
            if values["best_validation"] is not None:
                axes.plot([values["best_validation"]] * 2, [y - 0.15, y + 0.15], color=colour, lw=2, zorder=3)
            if values["default_test_mean"] is not None:
                axes.scatter(
                    values["default_test_mean"], y, s=60, facecolor=ink.SURFACE, edgecolor=colour, lw=1.6, zorder=4
                )
            if values["test_mean"] is not None:
                axes.scatter(
                    values["test_mean"],
                    y,
                    s=90,
                    color=colour,
                    marker=ink.MARKER[values["strategy"]],
                    zorder=5,
                    edgecolor=ink.SURFACE,
                    lw=1.2,
                )
        axes.set(ylim=(-len(rows) + 0.6, 0.62), yticks=[])
        axes.margins(x=0.06)
        axes.grid(visible=False, axis="y")
        score_axis(axes.xaxis, objective)
        axes.set_xlabel(scale(objective))
        said = "; ".join(
            f"{wording.STRATEGY[v['strategy']]} {wording.level(v['test_mean'], objective)} on test, "
            f"its default {wording.level(v['default_test_mean'], objective)}"
            for v in rows
        )
        return picture(figure, "sides", f"Scores of the strategies: {said}.")


def configurations(
    rows: Sequence[tuple[str, Sequence[float]]],
    strategy: str,
    key: str,
    title: str,
    objective: str,
    limits: tuple[float, float],
) -> Picture:
    """Confirmed configurations, one row each: every seed a circle, the mean filled.

    Args:
        rows: what tells a configuration from the others, and its validation score at each seed; drawn in this order.
        limits: of the score axis, shared by pictures that stand side by side.
    """
    colour = ink.STRATEGY[strategy]
    with drawing(380, 64 + 40 * len(rows)) as (figure, axes):
        for row, (label, scores) in enumerate(rows):
            row_name(axes, -row + 0.3, label, va="center", fontsize=11)
            axes.scatter(scores, [-row] * len(scores), s=26, facecolor=ink.SURFACE, edgecolor=colour, lw=1.2, zorder=3)
            mean = float(np.mean(scores))
            axes.scatter(
                mean, -row, s=84, color=colour, marker=ink.MARKER[strategy], edgecolor=ink.SURFACE, lw=1.2, zorder=4
            )
        axes.set(xlim=limits, ylim=(-len(rows) + 0.55, 0.62), yticks=[], xlabel="validation " + scale(objective))
        axes.grid(visible=False, axis="y")
        if title:
            axes.set_title(title, loc="left", weight="bold")
        score_axis(axes.xaxis, objective)
        said = "; ".join(f"{label} {wording.level(float(np.mean(scores)), objective)}" for label, scores in rows)
        about = f", {title}" if title else ""
        return picture(figure, key, f"Mean validation score over seeds of each configuration{about}: {said}.")


def learning_curves(
    search: pd.DataFrame, confirmed: pd.DataFrame, strategy: str, objective: str, limits: tuple[float, float]
) -> Picture:
    """Validation score by epoch: every trial of the search thin, the confirmed winner bold with the range of its seeds.

    Args:
        search: epochs of the search trials of this strategy (`trial_id`, `epoch`, `validation_<objective>`).
        confirmed: the same of the winner's confirmation runs.
        limits: of the score axis, shared by all strategies.
    """
    column, colour = f"validation_{objective}", ink.STRATEGY[strategy]
    with drawing(360, 260) as (figure, axes):
        trials = search["trial_id"].nunique()
        if trials <= CURVES_AT_MOST:
            lines = [g[["epoch", column]].to_numpy() for _, g in search.groupby("trial_id", sort=False)]
            axes.add_collection(LineCollection(lines, colors=colour, linewidths=0.9, alpha=0.35))
        else:
            spread = search.groupby("epoch")[column].quantile(np.array([0.1, 0.9])).unstack()
            axes.fill_between(spread.index, spread[0.1], spread[0.9], color=colour, alpha=0.18, lw=0)
        if len(confirmed):
            sns.lineplot(
                confirmed,
                x="epoch",
                y=column,
                ax=axes,
                color=colour,
                lw=2.4,
                errorbar=("pi", 100),
                err_kws={"alpha": 0.25, "lw": 0},
            )
        last = int(max(search["epoch"].max() if len(search) else 1, confirmed["epoch"].max() if len(confirmed) else 1))
        axes.set(xlim=(1, max(last, 2)), ylim=limits, xlabel="epoch", ylabel="")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        axes.set_title(wording.capital(wording.STRATEGY[strategy]), color=colour, weight="bold")
        score_axis(axes.yaxis, objective)
        said = wording.count(trials, "search trial")
        if len(confirmed):
            end = confirmed[confirmed["epoch"] == confirmed["epoch"].max()][column].mean()
            said += f"; the confirmed winner ends at {wording.level(end, objective)}"
        return picture(figure, f"curves-{strategy}", f"Learning curves of {wording.STRATEGY[strategy]}: {said}.")


def confusion_matrix(counts: NDArray[np.int64], classes: Sequence[str]) -> Picture:
    """Share of each true class (rows) that was given each name (columns), over all seeds together."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = len(classes)
    cell = float(np.clip(430 / size, 14, 46))
    names = [wording.shortened(name, 22) for name in classes]
    with drawing(int(size * cell + 190), int(size * cell + 150)) as (figure, axes):
        for row in range(size):
            for column in range(size):
                share = float(shares[row, column])
                axes.add_patch(Rectangle((column, row), 1, 1, facecolor=ink.step(share), edgecolor=ink.SURFACE, lw=1.5))
                if size <= NUMBERS_AT_MOST and share >= 0.005:
                    shade = ink.SURFACE if share > 0.5 else ink.INK
                    axes.text(
                        column + 0.5,
                        row + 0.53,
                        f"{share * 100:.0f}",
                        ha="center",
                        va="center",
                        color=shade,
                        fontsize=min(12, cell * 0.34),
                        weight="bold" if row == column else "normal",
                    )
        axes.set(xlim=(0, size), ylim=(size, 0), aspect="equal")
        small = max(7.5, min(11.5, cell * 0.7))
        axes.set_xticks(np.arange(size) + 0.5, names, rotation=45, ha="right", rotation_mode="anchor", fontsize=small)
        axes.set_yticks(np.arange(size) + 0.5, names, fontsize=small)
        axes.tick_params(labelcolor=ink.INK)
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
        axes.set_title("% of each true class (row)", fontsize=11)
        recalls = ", ".join(f"{name} {shares[i, i] * 100:.0f} %" for i, name in enumerate(classes))
        return picture(figure, "confusion", f"Confusion matrix; share of each class that was recognised: {recalls}.")


def importances(values: dict[str, float], key: str, title: str) -> Picture:
    """Bars of one strategy's parameter importances by one method, which add up to one."""
    ranked = sorted(values.items(), key=lambda item: item[1], reverse=True)[:8]
    with drawing(360, 74 + 26 * len(ranked)) as (figure, axes):
        names = [name for name, _ in ranked]
        shares = [value for _, value in ranked]
        sns.barplot(x=shares, y=names, ax=axes, color=ink.MUTED, saturation=1, width=0.55)
        for index, share in enumerate(shares):
            axes.annotate(f"{share:.2f}", (share, index), (5, 0), textcoords="offset points", va="center", fontsize=11)
        axes.set(xlabel="", ylabel="", xticks=[], xlim=(0, max([*shares, 0.01]) * 1.18))
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(labelcolor=ink.INK)
        axes.set_title(title)
        said = ", ".join(f"{name} {value:.2f}" for name, value in ranked)
        return picture(figure, f"importance-{key}", f"{' '.join(title.split())}: {said}.")
