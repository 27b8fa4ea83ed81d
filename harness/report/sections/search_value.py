"""Four sections on what the search was worth: gain over the defaults, scores held up, edges of ranges, pruning."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis import wording
from harness.analysis.search_value import (
    NEAR,
    DefaultComparison,
    Edge,
    Gap,
    Pruning,
    compare_with_defaults,
    edges,
    gaps,
    pruning,
)
from harness.analysis.study_data import StudyData
from harness.analysis.trends import ALPHA
from harness.analysis.wording import config_text
from harness.config.parameters import label
from harness.report.section import Section, Table
from harness.results.metrics import METRICS, sign_of

READING = {
    "better": "better than the default",
    "worse": "worse than the default",
    "equal": "practically equal",
    "undecided": "no clear difference",
}


def default_section(data: StudyData) -> Section | None:
    """Show the winners' gain over the defaults on test; None if nothing was scored on test."""
    study = data.study
    defaults = data.defaults if data.winners else {}
    compared = compare_with_defaults(data.winners, defaults, study.objective, study.confirmation.equivalence)
    return _defaults(compared, study.objective) if compared else None


def gap_section(data: StudyData) -> Section | None:
    """Show the winners' scores in search, confirmation and test; None if nothing was scored on test."""
    scores = gaps(data.records, data.winners, data.study.objective)
    return _gap(scores, data.study.objective) if scores else None


def edge_section(data: StudyData) -> Section | None:
    """Show the best values that lie at an end of their range; None if there are none."""
    at_edges = edges(data.records, data.winners, data.study)
    return _edges(at_edges) if at_edges else None


def pruning_section(data: StudyData) -> Section | None:
    """Show how many trials were pruned; None if none was."""
    stopped = pruning(data.records, data.study.strategies)
    return _pruning(stopped) if stopped else None


def default_heading(compared: Sequence[DefaultComparison], objective: str) -> str:
    """Say in which strategies the winner of the search was better than the default on test."""
    parts = []
    for outcome, words in (
        ("better", "paid in {}"),
        ("equal", "made no practical difference in {}"),
        ("undecided", "did not clearly pay in {}"),
        ("worse", "ended worse than the default in {}"),
        ("same", "found nothing above the default in {}"),
    ):
        names = []
        for row in compared:
            if outcome == (row.compared.outcome if row.compared else "same"):
                size = wording.difference(row.compared.difference, objective, signed=True) if row.compared else ""
                points = " points" if METRICS[objective].in_percent else ""
                over = " over the default" if outcome == "better" else ""
                by = f" ({size}{points}{over})" if outcome in ("better", "worse") else ""
                names.append(wording.STRATEGY[row.strategy] + by)
        if names:
            last = "or" if outcome in ("equal", "undecided", "same") else "and"
            parts.append(words.format(wording.listed(names, last)))
    return f"The search {wording.listed(parts)}"


def gap_heading(scores: Sequence[Gap], objective: str) -> str:
    """Say how far the winners' scores in the search were from their scores on test."""
    parts = []
    for row in scores:
        size = wording.points(abs(row.above_test), objective)
        how = "better" if row.above_test > 0 else "worse"
        alike = size == wording.points(0.0, objective)
        parts.append(f"{'the same' if alike else f'{size} {how}'} in {wording.STRATEGY[row.strategy]}")
    if len(parts) == 1:
        return f"Against its test score, the winner's search score was {parts[0]}"
    return f"Against their test scores, the winners' search scores were {wording.listed(parts)}"


def edge_heading(found: Sequence[Edge]) -> str:
    """Say which best values lie at an end of their range, and in which direction to extend the range."""
    named = {(edge.strategy, edge.parameter, edge.end): edge for edge in found}
    if len(named) == 1:
        edge = next(iter(named.values()))
        who = wording.capital(wording.STRATEGY[edge.strategy])
        return f"{who}'s best {label(edge.parameter)} lies at the edge of its range: search further {_way(edge)}"
    parts = []
    for strategy in dict.fromkeys(edge.strategy for edge in found):
        own = [f"{label(edge.parameter)} ({_way(edge)})" for edge in named.values() if edge.strategy == strategy]
        parts.append(f"{wording.listed(own)} in {wording.STRATEGY[strategy]}")
    return f"Best values lie at the edge of their range, search further: {'; '.join(parts)}"


def pruning_heading(found: Pruning) -> str:
    """Say what pruning saved, and whether the strategies were pruned equally often."""
    saved = f"Pruning saved {wording.share(found.saved_share)} of the epochs"
    if found.p_value is None:
        return f"{saved} in {wording.STRATEGY[found.strategies[0].strategy]}"
    if found.p_value >= ALPHA:
        return f"{saved}, with no clear difference between the strategies"
    ranked = sorted(found.strategies, key=lambda side: side.pruned / side.trials, reverse=True)
    parts = [f"{side.pruned} of {side.trials} trials in {wording.STRATEGY[side.strategy]}" for side in ranked]
    return f"{saved}, unevenly: it stopped {wording.listed(parts)}"


def _defaults(compared: Sequence[DefaultComparison], objective: str) -> Section:
    rows = []
    for row in compared:
        cells = [wording.level(row.default, objective), wording.level(row.winner, objective)]
        if row.compared is None:
            cells += [wording.DASH, "the default is the winner"]
        else:
            cells += [wording.gap(row.compared.difference, row.compared.ci95, objective), READING[row.compared.outcome]]
        rows.append([wording.capital(wording.STRATEGY[row.strategy]), *cells])
    columns = [
        ("strategy", False),
        ("default", True),
        ("winner", True),
        ("difference (95 % interval)", True),
        ("reads as", False),
    ]
    turned = ", the sign turned so that more is better" if sign_of(objective) < 0 else ""
    note = (
        f"{wording.capital(METRICS[objective].label)} on the test split, mean over "
        f"{wording.count(min(row.seeds for row in compared), 'seed')}. Differences in {_unit(objective)}{turned}: the "
        "winner of the search minus the default, paired by seed and test image"
    )
    several = sum(row.compared is not None for row in compared) > 1
    note += ", and read at Holm's levels over the strategies." if several else "."
    table = Table("Winner and default on the test split", columns, rows)
    return Section("search-paid", default_heading(compared, objective), note=note, table=table)


def _gap(scores: Sequence[Gap], objective: str) -> Section:
    rows = [
        [
            wording.capital(wording.STRATEGY[gap.strategy]),
            *(wording.level(value, objective) for value in (gap.search, gap.confirmed, gap.test)),
            *(
                wording.difference(apart, objective, signed=True)
                for apart in (gap.above_confirmation, gap.above_test - gap.above_confirmation)
            ),
        ]
        for gap in scores
    ]
    columns = [
        ("strategy", False),
        ("search", True),
        ("confirmation", True),
        ("test", True),
        ("search above confirmation", True),
        ("confirmation above test", True),
    ]
    note = (
        f"The same configuration each time, {METRICS[objective].label}: its validation score in the search, for "
        "which it was chosen and which therefore flatters; its mean validation score over the seeds of the "
        "confirmation, which draw other splits; its mean on test. The last columns are differences in "
        f"{_unit(objective)}, positive where the earlier score was better. They hold chance too: each score has "
        "images of its own."
    )
    if other := [wording.STRATEGY[gap.strategy] for gap in scores if not gap.is_best]:
        note += f" In {wording.listed(other)} the winner was not the best trial of the search."
    table = Table("Winners in search, confirmation and test", columns, rows)
    return Section("search-gap", gap_heading(scores, objective), note=note, table=table)


def _edges(found: Sequence[Edge]) -> Section:
    rows = [
        [
            wording.capital(wording.STRATEGY[edge.strategy]),
            label(edge.parameter),
            config_text(edge.parameter, edge.value),
            f"{_span(edge)} ({'upper' if edge.end == 'high' else 'lower'} end)",
            wording.listed(edge.roles),
        ]
        for edge in found
    ]
    columns = [("strategy", False), ("parameter", False), ("best value", True), ("range", False), ("of", False)]
    note = (
        f"Values in the outer {NEAR * 100:.0f} % of a searched range (in the logarithm where it is searched so), or "
        f"the last whole number. By chance alone one value in {1 / (2 * NEAR):.0f} of a real range would lie there."
    )
    table = Table("Best values at the edge of their range", columns, rows)
    return Section("search-edges", edge_heading(found), note=note, table=table)


def _pruning(found: Pruning) -> Section:
    rows = [
        [
            wording.capital(wording.STRATEGY[side.strategy]),
            f"{side.pruned} of {side.trials}",
            wording.share(side.pruned / side.trials),
            f"{side.saved:,} of {side.planned:,}",
            wording.share(side.saved / max(side.planned, 1)),
        ]
        for side in found.strategies
    ]
    columns = [("strategy", False), ("trials pruned", True), ("share", True), ("epochs saved", True), ("share", True)]
    note = "A trial below the median of its own strategy is stopped early."
    if found.p_value is not None:
        note += f" Fisher's exact test between the strategies: p = {wording.rate(found.p_value)}."
    return Section("search-pruning", pruning_heading(found), note=note, table=Table("Pruned trials", columns, rows))


def _unit(objective: str) -> str:
    return "points" if METRICS[objective].in_percent else METRICS[objective].label


def _span(edge: Edge) -> str:
    return " to ".join(config_text(edge.parameter, end) for end in edge.span.ends())


def _way(edge: Edge) -> str:
    """Return the direction in which to extend the range."""
    return "up" if edge.end == "high" else "down"
