"""Sections of what was tried after the verdict, each headed by what it found."""

from __future__ import annotations

from collections.abc import Sequence

from harness.config.parameters import label
from harness.report import explored_figures as figures
from harness.report import wording
from harness.report.explored import Answered, Changed
from harness.report.labels import config_text
from harness.report.section import Section, Table
from harness.report.statistics import Comparison
from harness.report.story import StudyData
from harness.report.wording import MINUS
from harness.results.metrics import sign_of

_SIDE = {"better": "fine-tuning is better", "worse": "feature extraction is better", "equal": "practically equal",
         "undecided": "undecided"}  # fmt: skip


def controlled_sections(story: StudyData) -> list[Section]:
    """Make a section for each strategy whose winner was tried with one choice changed at a time."""
    found = story.changed
    strategies = dict.fromkeys(one.strategy for one in found)
    return [_controlled([one for one in found if one.strategy == name], story.study.objective) for name in strategies]


def size_section(story: StudyData) -> Section | None:
    """Show the winners trained on fewer images; None if no share was tried."""
    points = story.sizes
    return _sizes(points, story) if points else None


def shift_section(story: StudyData) -> Section | None:
    """Show the winners on shifted test images; None if no shift was tried."""
    points = story.shifts
    return _shifts(points, story.study.objective) if points else None


def told(one: Changed) -> str:
    """`unfreeze depth (stages) 2 instead of 3`."""
    named = "" if one.parameter in ("backbone", "batchnorm") else f"{label(one.parameter)} "
    prefix = "BatchNorm " if one.parameter == "batchnorm" else named
    return f"{prefix}{config_text(one.parameter, one.value)} instead of {config_text(one.parameter, one.before)}"


def _controlled(found: Sequence[Changed], objective: str) -> Section:
    strategy = found[0].strategy
    shown = [(told(one), one) for one in found if one.completed]
    seeds = max((len(one.differences) for _, one in shown), default=0)
    lost = [[told(one), wording.listed(wording.STATE[s] for s in dict.fromkeys(one.ended))] for one in found
            if not one.completed]  # fmt: skip
    note = (
        f"One choice of the winner changed, everything else held: the same {wording.count(seeds, 'seed')}, splits and "
        "random numbers as its confirmation. Circles: seeds. Filled: a difference that is not chance (Holm's "
        "correction over these rows); their spread over seeds is taken from all rows together. Validation images, not "
        "test."
    )
    return Section(
        f"controlled-{strategy}",
        controlled_heading(found, objective),
        [figures.changes(shown, strategy, objective)] if shown else [],
        note,
        table=Table("Changes that did not complete", [("change", False), ("ended", False)], lost) if lost else None,
        exploratory=True,
    )


def controlled_heading(found: Sequence[Changed], objective: str) -> str:
    """What another choice would have cost, the worst one named; plain where no difference is clear."""
    who = wording.capital(wording.STRATEGY[found[0].strategy])
    complete = [one for one in found if one.completed]
    worse = [one for one in complete if one.clear and one.mean < 0]
    better = [one for one in complete if one.clear and one.mean > 0]
    if better:
        gain = wording.difference(max(one.mean for one in better), objective)
        return f"{who}: the search missed a better choice; {told(better[0])} gains {gain} {wording.unit(objective)}"
    if worse:
        cost = wording.difference(-worse[-1].mean, objective)
        others = len(complete) - len(worse)
        plain = f"{wording.count(others, 'other choice')} {'makes' if others == 1 else 'make'} no clear difference"
        return f"{who}: {told(worse[-1])} would have cost {cost} {wording.unit(objective)}{f'; {plain}' * (others > 0)}"
    return f"{who}: none of {wording.count(len(complete), 'other choice')} makes a clear difference"


def _sizes(points: Sequence[Answered], story: StudyData) -> Section:
    objective, zone = story.study.objective, story.study.confirmation.equivalence
    pictures = [figures.by_size(points, objective)]
    if sum(point.pair is not None for point in points) > 1:
        pictures.append(figures.gain_by_size(points, zone, objective))
    note = (
        "Both winners trained again on nested shares of the training images, class by class, with the same seeds and "
        "epochs (so fewer steps), and scored on the test split. Bands and bars: 95 % intervals; grey: differences that "
        "count as equal. Shares below all images are read at Holm's levels."
    )
    return Section(
        "data-sizes", sizes_heading(points), pictures, note, table=_table(points, objective), exploratory=True
    )


def sizes_heading(points: Sequence[Answered]) -> str:
    """From how many training images on fine-tuning pays; only what the intervals say."""
    pairs = [(max(p.train_images.values()), p.pair.outcome) for p in points if p.pair is not None]
    if not pairs:
        return "How the score grows with the training images"
    outcomes = [outcome for _, outcome in pairs]
    if all(outcome == "better" for outcome in outcomes):
        return f"Fine-tuning pays at every size tried, from {pairs[0][0]:,} training images on"
    if all(outcome == "worse" for outcome in outcomes):
        return "Feature extraction is better at every size tried"
    if outcomes[-1] == "better":
        first = next(i for i in range(len(pairs)) if all(outcome == "better" for outcome in outcomes[i:]))
        small, large = pairs[first - 1][0], pairs[first][0]
        return f"Fine-tuning clearly pays from {large:,} training images on; with {small:,} it does not yet"
    if "better" not in outcomes and "worse" in outcomes:
        last = max(i for i, outcome in enumerate(outcomes) if outcome == "worse")
        return f"Feature extraction is better up to {pairs[last][0]:,} training images, and no side clearly beyond"
    if "better" in outcomes or "worse" in outcomes:
        return "Which side is better changes with the number of training images, without a clear crossover"
    return "No number of training images tried shows a clear difference"


def _shifts(points: Sequence[Answered], objective: str) -> Section:
    note = (
        "The confirmed winners on copies of the test images: blurred, with noise, dimmer, stained otherwise, saved as "
        "a small JPEG. One strength each; no model was trained for it. Bars: 95 % intervals. Differences under a shift "
        "are read at Holm's levels."
    )
    legend = [s for s in wording.STRATEGY if any(s in point.scores for point in points)]
    return Section(
        "shifts", shifts_heading(points, objective), [figures.under_shift(points, objective)], note, legend,
        table=_table(points, objective), exploratory=True,
    )  # fmt: skip


def shifts_heading(points: Sequence[Answered], objective: str) -> str:
    """Which side stands shifts better, by the intervals; else the shift that costs most."""
    base, *rest = points
    told = [(wording.SHIFT[point.name], point.pair) for point in rest if point.pair is not None]
    ahead = [name for name, pair in told if pair.outcome == "better"]
    behind = [name for name, pair in told if pair.outcome == "worse"]
    if ahead and not behind:
        return f"On shifted images fine-tuning is better under {wording.listed(ahead)} ({len(ahead)} of {len(told)})"
    if behind and not ahead:
        names = f"{wording.listed(behind)} ({len(behind)} of {len(told)})"
        return f"On shifted images feature extraction is better under {names}"
    if ahead and behind:
        return (
            f"Which side stands shifts better depends on the shift: fine-tuning under {wording.listed(ahead)}, "
            f"feature extraction under {wording.listed(behind)}"
        )
    sign = sign_of(objective)
    drops = [
        (sign * (base.scores[s].mean - found.mean), s, wording.SHIFT[point.name])
        for point in rest
        for s, found in point.scores.items()
        if s in base.scores
    ]
    most, strategy, shift = max(drops)
    if most <= 0:
        return "Neither side clearly stands shifts better, and no shift costs anything"
    cost = f"{wording.difference(most, objective)} {wording.unit(objective)} in {wording.STRATEGY[strategy]}"
    return f"Neither side clearly stands shifts better; {shift} costs most, {cost}"


def _table(points: Sequence[Answered], objective: str) -> Table:
    strategies = [s for s in wording.STRATEGY if any(s in point.scores for point in points)]
    sized = any(point.fraction != 1 for point in points)
    columns = [("training images" if sized else "test images", sized)]
    columns += [(wording.capital(wording.STRATEGY[s]), True) for s in strategies]
    columns += [("difference (95 % interval)", True), ("reads as", False)]
    rows = []
    for point in points:
        name = f"{max(point.train_images.values()):,}" if sized else wording.SHIFT[point.name]
        cells = [
            wording.level(point.scores[s].mean, objective) if s in point.scores else wording.DASH for s in strategies
        ]
        rows.append([name, *cells, *_pair_cells(point.pair, objective)])
    return Table("Scores of the winners", columns, rows)


def _pair_cells(pair: Comparison | None, objective: str) -> list[str]:
    if pair is None:
        return [wording.DASH, wording.DASH]
    low, high = (wording.difference(end, objective) for end in pair.ci95)
    gap = wording.difference(pair.difference, objective, signed=True)
    return [f"{gap} ({low} to {high})".replace("-", MINUS), _SIDE[pair.outcome]]
