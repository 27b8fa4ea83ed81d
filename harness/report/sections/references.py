"""The section that compares the winners with what costs no training: guessing, and nearest neighbours."""

from __future__ import annotations

from typing import Any

from harness.analysis import wording
from harness.analysis.study_data import StudyData
from harness.report.section import Section, Table
from harness.results.metrics import METRICS, sign_of

NOTE = (
    "Only the winners were trained, and nothing was chosen by the other rows. Nearest neighbours: each test image is "
    "answered by the training images whose frozen features point in the most similar direction; how many of them vote "
    "is chosen on the validation images, with each seed anew. A winner that scores no better than they do has not "
    "profited from its training."
)


def reference_section(data: StudyData) -> Section | None:
    """Show the references beside the winners; None if there are no winners or no nearest neighbours."""
    found, objective = data.summary["references"], data.study.objective
    winners = {name: row["test_mean"] for name, row in data.summary["strategies"].items() if name in data.winners}
    if not winners or not found["neighbours"]:
        return None
    rows = [[wording.capital(f"{wording.STRATEGY[name]}, its winner"), winners[name], ""] for name in winners]
    rows += [
        [f"Nearest neighbours on {each['backbone']}", each["test_mean"], _numbers(each["numbers"])]
        for each in found["neighbours"]
    ]
    rows += [
        [name, found[key], ""]
        for name, key in (("Always the most frequent class", "most_frequent_class"), ("The best guess", "guessing"))
        if found[key] is not None
    ]
    rows.sort(key=lambda row: -sign_of(objective) * row[1])
    table = Table(
        "References beside the winners on the test split",
        [("answers from", False), (f"test {METRICS[objective].label}", True), ("neighbours", True)],
        [[name, wording.level(value, objective), voting] for name, value, voting in rows],
    )
    return Section("references", reference_heading(found["neighbours"][0], winners, objective), note=NOTE, table=table)


def reference_heading(best: dict[str, Any], winners: dict[str, float], objective: str) -> str:
    """Say what the nearest neighbours of the best backbone reach, and which winners are no better."""
    sign, reached = sign_of(objective), wording.level(best["test_mean"], objective)
    start = f"Without any training, nearest neighbours on the frozen features of {best['backbone']} reach {reached}"
    beaten = [wording.STRATEGY[name] for name, mean in winners.items() if sign * mean <= sign * best["test_mean"]]
    if beaten:
        are = "winners of {} are" if len(beaten) > 1 else "winner of {} is"
        return f"{start}, and the {are.format(wording.listed(beaten))} no better"
    if len(winners) == 1:
        return start
    return f"{start}, which is worse than {'both' if len(winners) == 2 else 'all'} winners"


def _numbers(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"
