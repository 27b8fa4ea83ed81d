"""The section with the strategies side by side: test scores, seeds, costs, and the comparisons beyond the main one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.analysis import wording
from harness.analysis.study_data import StudyData
from harness.report import style
from harness.report.axes import row_name, scale, score_axis
from harness.report.section import Section
from harness.report.style import Picture, drawing, picture
from harness.results.metrics import METRICS, sign_of

_OUTCOME = {
    "better": "better, after Holm's correction",
    "worse": "worse, after Holm's correction",
    "equal": "practically equal",
    "undecided": "undecided",
}


def strategy_section(data: StudyData) -> Section:
    """Show the strategies side by side. The section is always made."""
    rows, objective = strategy_rows(data), data.study.objective
    values = {
        "strategies": rows,
        "scored": any(row["test_mean"] is not None for row in rows),
        "side_picture": side_by_side(rows, objective) if data.winners else None,
        "others": other_pairs(data),
    }
    return Section("strategies", strategy_heading(rows, objective), template="strategies", values=values)


def strategy_heading(rows: Sequence[dict[str, Any]], objective: str) -> str:
    """Name the test scores of the strategies, the best first."""
    known = [row for row in rows if row["test_mean"] is not None]
    if not known:
        return "The strategies so far"
    ranked = sorted(known, key=lambda row: sign_of(objective) * row["test_mean"], reverse=True)
    scores = [f"{wording.STRATEGY[row['strategy']]} {wording.level(row['test_mean'], objective)}" for row in ranked]
    return wording.capital(f"{wording.listed(scores)} {METRICS[objective].label} on the test split")


def side_by_side(rows: Sequence[dict[str, Any]], objective: str) -> Picture:
    """Draw each strategy's test score with its interval, its default's test score, and its best validation score.

    Args:
        rows: `strategy`, `test_mean`, `test_ci95`, `default_test_mean`, `best_validation`; None if not known.
    """
    with drawing(460, 74 + 62 * len(rows)) as (figure, axes):
        for row, values in enumerate(rows):
            colour = style.STRATEGY[values["strategy"]]
            y = -row
            name = wording.capital(wording.STRATEGY[values["strategy"]])
            row_name(axes, y + 0.3, name, weight="bold", color=colour)
            if values["test_ci95"]:
                axes.plot(values["test_ci95"], [y, y], color=colour, lw=3, zorder=2)
            if values["best_validation"] is not None:
                axes.plot([values["best_validation"]] * 2, [y - 0.15, y + 0.15], color=colour, lw=2, zorder=3)
            if values["default_test_mean"] is not None:
                axes.scatter(
                    values["default_test_mean"], y, s=60, facecolor=style.SURFACE, edgecolor=colour, lw=1.6, zorder=4
                )
            if values["test_mean"] is not None:
                axes.scatter(
                    values["test_mean"],
                    y,
                    s=90,
                    color=colour,
                    marker=style.MARKER[values["strategy"]],
                    zorder=5,
                    edgecolor=style.SURFACE,
                    lw=1.2,
                )
        axes.set(ylim=(-len(rows) + 0.6, 0.62), yticks=[])
        axes.margins(x=0.06)
        axes.grid(visible=False, axis="y")
        score_axis(axes.xaxis, objective)
        axes.set_xlabel(scale(objective))
        described = "; ".join(
            f"{wording.STRATEGY[v['strategy']]} {wording.level(v['test_mean'], objective)} on test, "
            f"its default {wording.level(v['default_test_mean'], objective)}"
            for v in rows
        )
        return picture(figure, "sides", f"Scores of the strategies: {described}.")


def strategy_rows(data: StudyData) -> list[dict[str, Any]]:
    """Return a row for each strategy of the table, with its cost relative to the cheapest training."""
    rows = [{"strategy": name, **values} for name, values in data.summary["strategies"].items()]
    costs = [row["seconds_alone"] for row in rows if row["seconds_alone"]]
    for row in rows:
        row["cost_ratio"] = row["seconds_alone"] / min(costs) if row["seconds_alone"] else None
        row["cost_share"] = row["seconds_alone"] / max(costs) if row["seconds_alone"] else 0.0
    return rows


def other_pairs(data: StudyData) -> list[str]:
    """Write a sentence for each comparison beyond the primary one."""
    objective, sentences = data.study.objective, []
    for pair in data.summary["comparisons"][1:]:
        a, b = wording.STRATEGY[pair["a"]], wording.STRATEGY[pair["b"]]
        gap = f"{wording.difference(pair['difference'], objective, signed=True)} {wording.unit(objective)}"
        ends = wording.interval(pair["ci95"], objective)
        sentences.append(f"{wording.capital(b)} minus {a}: {gap} (95 % interval: {ends}); {_OUTCOME[pair['outcome']]}.")
    return sentences
