"""The table of both winners' scores under several conditions, which two sections share: data sizes and shifts."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis import wording
from harness.analysis.explored import ConditionResult
from harness.analysis.statistics import Comparison
from harness.report.section import Table

_SIDE = {
    "better": "fine-tuning is better",
    "worse": "feature extraction is better",
    "equal": "practically equal",
    "undecided": "undecided",
}


def paired_table(points: Sequence[ConditionResult], objective: str) -> Table:
    """Make a table with a row for each condition: both winners' scores, their difference and how it is read."""
    strategies = [s for s in wording.STRATEGY if any(s in point.scores for point in points)]
    by_size = any(point.fraction != 1 for point in points)
    columns = [("training images" if by_size else "test images", by_size)]
    columns += [(wording.capital(wording.STRATEGY[s]), True) for s in strategies]
    columns += [("difference (95 % interval)", True), ("reads as", False)]
    rows = []
    for point in points:
        name = f"{max(point.train_images.values()):,}" if by_size else wording.SHIFT[point.name]
        cells = [
            wording.level(point.scores[s].mean, objective) if s in point.scores else wording.DASH for s in strategies
        ]
        rows.append([name, *cells, *_pair_cells(point.pair, objective)])
    return Table("Scores of the winners", columns, rows)


def _pair_cells(pair: Comparison | None, objective: str) -> list[str]:
    if pair is None:
        return [wording.DASH, wording.DASH]
    return [wording.gap(pair.difference, pair.ci95, objective), _SIDE[pair.outcome]]
