"""Tables of several studies with a row for each study. A cell holds its text and the value that it is sorted by."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.analysis import wording
from harness.analysis.comparison import Difference, StudySummary
from harness.analysis.wording import config_text
from harness.config.parameters import PARAMETERS, label
from harness.report.compare.figures import OUTCOME
from harness.results.metrics import METRICS

RECOMMENDED = ("backbone", "unfreeze_depth", "unfreeze_schedule", "batchnorm", "head_lr", "backbone_lr", "batch_size")


@dataclass(frozen=True)
class Cell:
    """One cell: its text, the small text below it, and the value to sort by if that is not the text."""

    text: str
    small: str = ""
    value: float | str | None = None
    strategy: str = ""  # the cell is shown in the colour of this strategy


@dataclass(frozen=True)
class Grid:
    """A table; `columns` are pairs (heading, whether it holds numbers); the first cell of a row names the study."""

    caption: str
    columns: list[tuple[str, bool]]
    rows: list[list[Cell]]


def results(entries: Sequence[StudySummary], objective: str) -> Grid:
    """Make the table of the results of the studies of one objective."""
    sides = [name for name in wording.STRATEGY if any(name in entry.summary["strategies"] for entry in entries)]
    label = METRICS[objective].label
    columns = [("study", False), ("verdict", False), (f"difference, {wording.unit(objective)}", True)]
    columns += [("counts as equal", True), ("fine-tuning better on new data", True)]
    columns += [(f"{wording.STRATEGY[name]}, test", True) for name in sides]
    columns += [("seeds", True), ("looks at test", True)]
    return Grid(
        f"Results by study, {label}",
        columns,
        [
            [
                Cell(entry.name),
                Cell(OUTCOME[entry.outcome], strategy=entry.outcome if entry.outcome in wording.STRATEGY else ""),
                _difference(entry, objective),
                Cell(f"± {wording.difference(entry.equivalence, objective)}", value=entry.equivalence),
                _probability(entry),
                *(_test(entry, name, objective) for name in sides),
                _whole(entry.verdict["seeds"] if entry.verdict else None),
                _whole(entry.looks),
            ]
            for entry in entries
        ],
    )


def data(entries: Sequence[StudySummary]) -> Grid:
    """Make the table of the studies' data sets."""
    columns = [("study", False), ("data", False), ("images", True), ("classes", True), ("groups", True)]
    columns += [("training", True), ("validation", True), ("test", True), ("digest", False)]
    rows = []
    for entry in entries:
        card = entry.summary["data"]
        rows.append(
            [
                Cell(entry.name),
                Cell(str(card["name"] or wording.DASH), "rendered, not real" if entry.rendered else ""),
                _whole(card["images"]),
                _whole(len(card["classes"])),
                _whole(card["groups"]),
                *(_whole(card["split"][part]) for part in ("train", "validation", "test")),
                Cell((entry.digest or wording.DASH)[:12]),
            ]
        )
    return Grid("Data of each study", columns, rows)


def recommended(entries: Sequence[StudySummary]) -> Grid:
    """Make the table of the recommended configurations."""
    columns = [("study", False), ("strategy", False)]
    columns += [(label(name), PARAMETERS[name].kind != "choice") for name in RECOMMENDED]
    rows = []
    for entry in entries:
        chosen = entry.summary["recommendation"]
        config = chosen["config"] if chosen else {}
        strategy = chosen["strategy"] if chosen else ""
        cells = [Cell(config_text(name, config.get(name)), value=config.get(name)) for name in RECOMMENDED]
        rows.append([Cell(entry.name), Cell(wording.STRATEGY.get(strategy, wording.DASH), strategy=strategy), *cells])
    return Grid("Recommended configuration of each study", columns, rows)


def costs(entries: Sequence[StudySummary]) -> Grid:
    """Make the table of costs: of one training of each strategy, and of the whole study."""
    columns = [("study", False), ("feature extraction", True), ("fine-tuning", True), ("ratio", True)]
    columns += [("trials", True), ("time spent", True), ("last session", True), ("device", False), ("threads", True)]
    rows = []
    for entry in entries:
        environment, ratio = entry.summary["environment"], entry.cost_ratio
        sides = (entry.of(name, "seconds_alone") for name in ("feature_extraction", "fine_tuning"))
        spent = entry.summary["seconds_spent"]
        rows.append(
            [
                Cell(entry.name),
                *(Cell(wording.duration(seconds), value=seconds) for seconds in sides),
                Cell(wording.times(ratio) if ratio else wording.DASH, value=ratio),
                _whole(entry.trials),
                Cell(wording.duration(spent), value=spent),
                Cell(
                    (entry.last_session or wording.DASH)[:10], "not ended" if entry.running else "", entry.last_session
                ),
                Cell(str(environment.get("device") or wording.DASH)),
                _whole(environment.get("threads")),
            ]
        )
    return Grid("Costs of each study", columns, rows)


def differing(caption: str, names: Sequence[str], rows: Sequence[Difference]) -> Grid:
    """Make the table of fields that differ, with a column for each study."""
    columns = [("field", False), *((name, False) for name in names)]
    cells = [[Cell(row.key), *(Cell(_text(value)) for value in row.values)] for row in rows]
    return Grid(caption, columns, cells)


def _text(value: Any) -> str:
    if value is None:
        return wording.DASH
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _whole(number: int | None) -> Cell:
    return Cell(wording.DASH if number is None else f"{number:,}", value=number)


def _difference(entry: StudySummary, objective: str) -> Cell:
    if entry.verdict is None:
        return Cell(wording.DASH)
    mean = entry.verdict["difference"]
    ends = wording.interval(entry.verdict["ci95"], objective)
    return Cell(wording.difference(mean, objective, signed=True), ends, mean)


def _probability(entry: StudySummary) -> Cell:
    if entry.verdict is None:
        return Cell(wording.DASH)
    value = entry.verdict["probability_fine_tuning_better"]
    return Cell(wording.probability_short(value), value=value)


def _test(entry: StudySummary, strategy: str, objective: str) -> Cell:
    mean, ci95 = entry.of(strategy, "test_mean"), entry.of(strategy, "test_ci95")
    ends = wording.levels(ci95, objective) if ci95 else ""
    return Cell(wording.level(mean, objective), ends, mean)
