"""What each section on the search found, in a heading: computed, and plain where nothing was found."""

from __future__ import annotations

from collections.abc import Sequence

from harness.config.parameters import label
from harness.report import wording
from harness.report.anytime import CLOSE, Anytime
from harness.report.findings import ALPHA
from harness.report.searching import Edge, Gap, Paid, Pruning
from harness.results.metrics import METRICS


def course(searches: Sequence[Anytime], objective: str) -> str:
    """After how many trials each search was near its best, and which was still gaining at its end."""
    early = [search for search in searches if not search.still_gaining]
    told = []
    if early:
        first, *rest = [
            f"{wording.STRATEGY[search.strategy]}{{}} after {search.near} of {search.trials} trials" for search in early
        ]
        was = f" was expected within {_size(CLOSE, objective)} of its best"
        told.append(wording.listed([first.format(was), *(text.format("") for text in rest)]))
    if late := [search for search in searches if search.still_gaining]:
        names = wording.listed(wording.STRATEGY[search.strategy] for search in late)
        gains = wording.listed(wording.difference(search.last_gain, objective) for search in late)
        points = " points" if METRICS[objective].in_percent else ""
        was, its = ("was", "its") if len(late) == 1 else ("were", "their")
        told.append(f"{names} {was} still gaining, by an expected {gains}{points} in {its} last quarter of trials")
    return wording.capital("; ".join(told))


def paid(compared: Sequence[Paid], objective: str) -> str:
    """Where the winner of the search was better than the default on test."""
    told = []
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
            told.append(words.format(wording.listed(names, last)))
    return f"The search {wording.listed(told)}"


def gap(promised: Sequence[Gap], objective: str) -> str:
    """How far the winners' scores in the search lay from their scores on test."""
    told = []
    for row in promised:
        size = _size(abs(row.ahead), objective)
        how = "better" if row.ahead > 0 else "worse"
        alike = size == _size(0.0, objective)
        told.append(f"{'the same' if alike else f'{size} {how}'} in {wording.STRATEGY[row.strategy]}")
    if len(told) == 1:
        return f"Against its test score, the winner's search score was {told[0]}"
    return f"Against their test scores, the winners' search scores were {wording.listed(told)}"


def edges(found: Sequence[Edge]) -> str:
    """Which best values lie at an end of their range, and where to search on."""
    named = {(edge.strategy, edge.parameter, edge.end): edge for edge in found}
    if len(named) == 1:
        edge = next(iter(named.values()))
        who = wording.capital(wording.STRATEGY[edge.strategy])
        return f"{who}'s best {label(edge.parameter)} lies at the edge of its range: search further {_way(edge)}"
    told = []
    for strategy in dict.fromkeys(edge.strategy for edge in found):
        own = [f"{label(edge.parameter)} ({_way(edge)})" for edge in named.values() if edge.strategy == strategy]
        told.append(f"{wording.listed(own)} in {wording.STRATEGY[strategy]}")
    return f"Best values lie at the edge of their range, search further: {'; '.join(told)}"


def pruning(found: Pruning) -> str:
    """What pruning saved, and whether it fell evenly on the strategies."""
    saved = f"Pruning saved {wording.share(found.saved_share)} of the epochs"
    if found.p_value is None:
        return f"{saved} in {wording.STRATEGY[found.sides[0].strategy]}"
    if found.p_value >= ALPHA:
        return f"{saved}, with no clear difference between the strategies"
    ranked = sorted(found.sides, key=lambda side: side.pruned / side.trials, reverse=True)
    told = [f"{side.pruned} of {side.trials} trials in {wording.STRATEGY[side.strategy]}" for side in ranked]
    return f"{saved}, unevenly: it stopped {wording.listed(told)}"


def _way(edge: Edge) -> str:
    """Where to search on."""
    return "up" if edge.end == "high" else "down"


def _size(value: float, objective: str) -> str:
    """`0.5 points`, or `0.005` where scores are no percentages."""
    return wording.difference(value, objective) + (" points" if METRICS[objective].in_percent else "")
