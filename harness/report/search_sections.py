"""Sections on the search itself, each with what was found for a heading; those with nothing to show are left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.config.parameters import label
from harness.report import search_figures, search_findings, wording
from harness.report.anytime import BAND, ORDERS, Anytime, anytime
from harness.report.labels import config_text
from harness.report.searching import NEAR, Edge, Gap, Paid, Pruning, edges, gaps, paid, pruning
from harness.report.section import Section, Table
from harness.report.story import StudyData
from harness.results.metrics import METRICS, sign_of

READ = {
    "better": "better than the default",
    "worse": "worse than the default",
    "equal": "practically equal",
    "undecided": "no clear difference",
}


def anytime_section(story: StudyData) -> Section | None:
    """Show the best score so far, by trials and by time; None if no search has finished a trial."""
    objective = story.study.objective
    searches = [made for name in story.study.strategies if (made := anytime(story.records, name, objective))]
    return _anytime(searches, objective) if searches else None


def paid_section(story: StudyData) -> Section | None:
    """Show what the search brought on test, compared with each strategy's default; None before the test."""
    study = story.study
    defaults = story.defaults if story.winners else {}
    compared = paid(story.winners, defaults, study.objective, study.confirmation.equivalence)
    return _paid(compared, study.objective) if compared else None


def gap_section(story: StudyData) -> Section | None:
    """Show what the winners scored in search, confirmation and test; None before the test."""
    promised = gaps(story.records, story.winners, story.study.objective)
    return _gap(promised, story.study.objective) if promised else None


def edge_section(story: StudyData) -> Section | None:
    """Show the best values that lie at an end of their range; None if there are none."""
    at_edges = edges(story.records, story.winners, story.study)
    return _edges(at_edges) if at_edges else None


def pruning_section(story: StudyData) -> Section | None:
    """Show how many trials were pruned; None if none was."""
    stopped = pruning(story.records, story.study.strategies)
    return _pruning(stopped) if stopped else None


def _anytime(searches: Sequence[Anytime], objective: str) -> Section:
    timed = [search.by_seconds for search in searches if search.by_seconds]
    pictures = [search_figures.anytime([search.by_trials for search in searches], "trials", objective)]
    if timed:
        pictures.append(search_figures.anytime(timed, "seconds", objective))
    low, high = (f"{share * 100:.0f}" for share in BAND)
    note = (
        "Bold: the expected best validation score of so many trials, or of so much device time, were they run in "
        f"random order (by trials exactly, by time over {ORDERS} orders). Band: {low} to {high} % of the orders. Thin: "
        "the order they ran in; a search that learns has its better trials late, and may run below what is expected "
        "of a random order. A trial that was pruned or failed counts with its cost and as the worst complete one."
    )
    return Section(
        "search-anytime",
        search_findings.course(searches, objective),
        pictures,
        note + _at_equal_time(searches, objective),
    )


def _at_equal_time(searches: Sequence[Anytime], objective: str) -> str:
    """What each search is expected to reach in the device time of the one that ended first."""
    timed = [search.by_seconds for search in searches if search.by_seconds]
    if len(timed) < 2:
        return ""
    shortest = min(float(course.cost[-1]) for course in timed)
    told = []
    for course in timed:
        if course.cost[0] > shortest:
            told.append(f"{wording.STRATEGY[course.strategy]} would hardly have finished a trial")
        else:
            reached = float(np.interp(shortest, course.cost, course.mean))
            told.append(f"{wording.STRATEGY[course.strategy]} reached {wording.level(reached, objective)}")
    return f" In {wording.duration(shortest)}, all that the cheapest search took, {wording.listed(told)}."


def _paid(compared: Sequence[Paid], objective: str) -> Section:
    rows = []
    for row in compared:
        cells = [wording.level(row.default, objective), wording.level(row.winner, objective)]
        if row.compared is None:
            cells += [wording.DASH, "the default is the winner"]
        else:
            low, high = (wording.difference(end, objective) for end in row.compared.ci95)
            mean = wording.difference(row.compared.difference, objective, signed=True)
            cells += [f"{mean} ({low} to {high})", READ[row.compared.outcome]]
        rows.append([wording.capital(wording.STRATEGY[row.strategy]), *cells])
    columns = [
        ("strategy", False), ("default", True), ("winner", True), ("difference (95 % interval)", True),
        ("reads as", False),
    ]  # fmt: skip
    turned = ", the sign turned so that more is better" if sign_of(objective) < 0 else ""
    note = (
        f"{wording.capital(METRICS[objective].label)} on the test split, mean over "
        f"{wording.count(min(row.seeds for row in compared), 'seed')}. Differences in {_unit(objective)}{turned}: the "
        "winner of the search minus the default, paired by seed and test image"
    )
    several = sum(row.compared is not None for row in compared) > 1
    note += ", and read at Holm's levels over the strategies." if several else "."
    table = Table("Winner and default on the test split", columns, rows)
    return Section("search-paid", search_findings.paid(compared, objective), note=note, table=table)


def _gap(promised: Sequence[Gap], objective: str) -> Section:
    rows = [
        [
            wording.capital(wording.STRATEGY[gap.strategy]),
            *(wording.level(value, objective) for value in (gap.search, gap.confirmed, gap.test)),
            *(
                wording.difference(apart, objective, signed=True)
                for apart in (gap.flattered, gap.ahead - gap.flattered)
            ),
        ]
        for gap in promised
    ]
    columns = [
        ("strategy", False), ("search", True), ("confirmation", True), ("test", True),
        ("search above confirmation", True), ("confirmation above test", True),
    ]  # fmt: skip
    note = (
        f"The same configuration each time, {METRICS[objective].label}: its validation score in the search, for "
        "which it was chosen and which therefore flatters; its mean validation score over the seeds of the "
        "confirmation, which draw other splits; its mean on test. The last columns are differences in "
        f"{_unit(objective)}, positive where the earlier score was better. They hold chance too: each score has "
        "images of its own."
    )
    if other := [wording.STRATEGY[gap.strategy] for gap in promised if not gap.is_best]:
        note += f" In {wording.listed(other)} the winner was not the best trial of the search."
    table = Table("Winners in search, confirmation and test", columns, rows)
    return Section("search-gap", search_findings.gap(promised, objective), note=note, table=table)


def _edges(found: Sequence[Edge]) -> Section:
    rows = [
        [
            wording.capital(wording.STRATEGY[edge.strategy]),
            label(edge.parameter),
            config_text(edge.parameter, edge.value),
            f"{_span(edge)} ({'upper' if edge.end == 'high' else 'lower'} end)",
            wording.listed(edge.of),
        ]
        for edge in found
    ]
    columns = [("strategy", False), ("parameter", False), ("best value", True), ("range", False), ("of", False)]
    note = (
        f"Values in the outer {NEAR * 100:.0f} % of a searched range (in the logarithm where it is searched so), or "
        f"the last whole number. By chance alone one value in {1 / (2 * NEAR):.0f} of a real range would lie there."
    )
    table = Table("Best values at the edge of their range", columns, rows)
    return Section("search-edges", search_findings.edges(found), note=note, table=table)


def _pruning(found: Pruning) -> Section:
    rows = [
        [
            wording.capital(wording.STRATEGY[side.strategy]),
            f"{side.pruned} of {side.trials}",
            wording.share(side.pruned / side.trials),
            f"{side.saved:,} of {side.planned:,}",
            wording.share(side.saved / max(side.planned, 1)),
        ]
        for side in found.sides
    ]
    columns = [
        ("strategy", False), ("trials pruned", True), ("share", True), ("epochs saved", True), ("share", True)
    ]  # fmt: skip
    note = "A trial below the median of its own strategy is stopped early."
    if found.p_value is not None:
        note += f" Fisher's exact test between the strategies: p = {wording.rate(found.p_value)}."
    return Section(
        "search-pruning", search_findings.pruning(found), note=note, table=Table("Pruned trials", columns, rows)
    )


def _unit(objective: str) -> str:
    return "points" if METRICS[objective].in_percent else METRICS[objective].label


def _span(edge: Edge) -> str:
    return " to ".join(config_text(edge.parameter, end) for end in edge.span.ends())
