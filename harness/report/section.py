"""What one section of the page is made of, and what a section is in the list of `harness.report.sections.all`.

To add a section, write its module, with a function that makes it from a study, and add a line to that list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from harness.analysis.study_data import StudyData
from harness.report.style import Picture


@dataclass(frozen=True)
class Table:
    """A small table; `columns` are (heading, is a number), the first column names the rows."""

    caption: str  # for those who do not see it
    columns: list[tuple[str, bool]]
    rows: list[list[str]]


@dataclass(frozen=True)
class Shot:
    """An image of the data, as a data address, with the lines that stand below it."""

    address: str
    alt: str
    lines: list[str]


@dataclass(frozen=True)
class Section:
    """One section of the page: a heading that says what was found, and what shows it."""

    key: str  # unique on the page, fit for an address
    heading: str
    pictures: list[Picture] = field(default_factory=list)
    note: str = ""
    legend: list[str] = field(default_factory=list)  # strategies drawn
    result: bool = True  # shows results, so it says where the data are rendered
    table: Table | None = None
    shots: list[Shot] = field(default_factory=list)
    exploratory: bool = False  # came after the verdict and chose nothing, and says so
    template: str = "evidence"  # of templates/sections/, if it is laid out in a way of its own
    values: Mapping[str, Any] = field(default_factory=dict)  # what such a template shows beside the study


Group = Literal["answer", "confirmation", "exploration", "test", "search", "study"]  # in the order of the page
MakeSection = Callable[[StudyData], Section | Sequence[Section] | None]  # None, []: the study has nothing to show there


@dataclass(frozen=True)
class SectionEntry:
    """One line of the list of sections."""

    group: Group
    make: MakeSection


def build_sections(entries: Iterable[SectionEntry], data: StudyData) -> list[Section]:
    """Make the sections of a study, group by group, and within a group in the order of the list."""
    listed = list(entries)
    made: list[Section] = []
    for group in get_args(Group):
        for entry in listed:
            if entry.group == group:
                found = entry.make(data)
                made += [] if found is None else [found] if isinstance(found, Section) else found
    return made
