"""The sections on each strategy's confirmed configurations: which scored best, and which are clearly worse."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from harness.analysis import wording
from harness.analysis.confirmed import Confirmed, Group, groups
from harness.analysis.study_data import StudyData
from harness.analysis.wording import config_text
from harness.config.parameters import PARAMETERS, label, short_label
from harness.report import style
from harness.report.axes import row_name, scale, score_axis
from harness.report.section import Section, Table
from harness.report.style import Picture, drawing, picture

NAMED_BY = 2  # largest number of parameters in a configuration's name; the table below shows all parameters
_FIRST = ("unfreeze_depth", "backbone", "batchnorm", "batch_size")  # preferred for the name


def configuration_sections(data: StudyData) -> list[Section]:
    """Make a section for each strategy with several confirmed configurations."""
    objective = data.study.objective
    return [configuration_section(group, objective) for group in groups(data.records, objective)]


def configuration_section(group: Group, objective: str) -> Section:
    """Show a strategy's confirmed configurations, a panel for each value of `Group.panels` if there is one."""
    panel = group.panels
    rest = [name for name in group.parameters if name != panel]
    names = rest if panel or len(rest) <= NAMED_BY else distinguishing(group.members, rest)
    scores = [score for member in group.members for score in member.scores]
    reach = 0.06 * (max(scores) - min(scores)) + 1e-6
    limits = (min(scores) - reach, max(scores) + reach)
    labels = {id(member): config_name(member, names) or f"no. {place}" for place, member in enumerate(group.members, 1)}
    pictures = []
    values = sorted({member.values[panel] for member in group.members}) if panel else [None]
    for value in values:
        rows = [(labels[id(m)], m.scores) for m in group.members if panel is None or m.values[panel] == value]
        title = f"{label(panel)} {config_text(panel, value)}" if panel else ""
        key = f"confirmed-{group.strategy}-{value}"
        pictures.append(configuration_figure(rows, group.strategy, key, title, objective, limits))
    seeds = wording.count(len(group.members[0].scores), "seed")
    note = (
        f"Each configuration was trained over the same {seeds}; a seed draws its own training and validation images. "
        "Circles: seeds. Filled: their mean. Clearly worse than the best one: by paired t-tests over the seeds with "
        "Holm's correction at 5 %."
    )
    best = group.members[0]
    heading = configuration_heading(group, config_name(best, group.parameters) if panel else labels[id(best)])
    table = None if panel or names == rest else _table(group, labels, objective)
    return Section(f"confirmed-{group.strategy}", heading, pictures, note, table=table)


def distinguishing(members: Sequence[Confirmed], names: Sequence[str]) -> list[str]:
    """Return the fewest parameters that distinguish all configurations; [] if more than NAMED_BY are needed."""
    ranked = sorted(names, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    for size in range(1, NAMED_BY + 1):
        for chosen in combinations(ranked, size):
            if len({tuple(str(m.values[name]) for name in chosen) for m in members}) == len(members):
                return list(chosen)
    return []


def config_name(member: Confirmed, names: Sequence[str]) -> str:
    """Write these parameters of a configuration: `recalibrated, batch size 64`."""
    return ", ".join(
        config_text(name, member.values[name])
        if PARAMETERS[name].kind == "choice"
        else f"{short_label(name)} {config_text(name, member.values[name])}"
        for name in names
        if member.values[name] is not None
    )


def _table(group: Group, labels: dict[int, str], objective: str) -> Table:
    """Make the table of all differing parameters, with a row for each: there are few configurations."""
    columns = [("", False), *((labels[id(member)], False) for member in group.members)]
    rows = [
        [wording.capital(label(name)), *(config_text(name, member.values[name]) for member in group.members)]
        for name in group.parameters
    ]
    rows.append(["Mean validation score", *(wording.level(member.mean, objective) for member in group.members)])
    return Table("The confirmed configurations", columns, rows)


def configuration_heading(group: Group, label: str) -> str:
    """Say which confirmed configuration scored best, and how many of the others are clearly worse."""
    worse, others = sum(group.clearly_worse), len(group.clearly_worse)
    best = f"{wording.capital(wording.STRATEGY[group.strategy])}, confirmed: {label} scored best on validation"
    if worse == 0:
        return f"{best}, none of the {others} others clearly worse"
    return f"{best}, {worse} of the {others} others clearly worse"


def configuration_figure(
    rows: Sequence[tuple[str, Sequence[float]]],
    strategy: str,
    key: str,
    title: str,
    objective: str,
    limits: tuple[float, float],
) -> Picture:
    """Draw a row for each confirmed configuration: a circle for every seed, a filled mark for the mean.

    Args:
        rows: name of the configuration and its validation score at each seed, in the order of drawing.
        limits: of the score axis, shared by the pictures side by side.
    """
    colour = style.STRATEGY[strategy]
    with drawing(380, 64 + 40 * len(rows)) as (figure, axes):
        for row, (label, scores) in enumerate(rows):
            row_name(axes, -row + 0.3, label, va="center", fontsize=11)
            axes.scatter(
                scores, [-row] * len(scores), s=26, facecolor=style.SURFACE, edgecolor=colour, lw=1.2, zorder=3
            )
            mean = float(np.mean(scores))
            axes.scatter(
                mean, -row, s=84, color=colour, marker=style.MARKER[strategy], edgecolor=style.SURFACE, lw=1.2, zorder=4
            )
        axes.set(xlim=limits, ylim=(-len(rows) + 0.55, 0.62), yticks=[], xlabel="validation " + scale(objective))
        axes.grid(visible=False, axis="y")
        if title:
            axes.set_title(title, loc="left", weight="bold")
        score_axis(axes.xaxis, objective)
        described = "; ".join(f"{label} {wording.level(float(np.mean(scores)), objective)}" for label, scores in rows)
        about = f", {title}" if title else ""
        return picture(figure, key, f"Mean validation score over seeds of each configuration{about}: {described}.")
