"""The parts of a section of the page, and the entries of the list of sections in `harness.report.sections.all`.

To add a section, write a module with a function that makes it from a `StudyData`, and add a line to that list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from harness.analysis.study_data import StudyData
from harness.report.style import Picture


@dataclass(frozen=True)
class Table:
    """A small table; `columns` are pairs (heading, whether it holds numbers); the first column names the rows."""

    caption: str  # for screen readers
    columns: list[tuple[str, bool]]
    rows: list[list[str]]


@dataclass(frozen=True)
class CaptionedImage:
    """An image of the data set with the lines of text below it."""

    address: str  # the image as a data URL
    alt: str
    lines: list[str]


@dataclass(frozen=True)
class Section:
    """One section of the page: a heading that states the finding, and the figures, table or images that show it."""

    key: str  # unique on the page; used as the anchor in its URL
    heading: str
    pictures: list[Picture] = field(default_factory=list)
    note: str = ""
    legend: list[str] = field(default_factory=list)  # the strategies that the figures show
    table: Table | None = None
    images: list[CaptionedImage] = field(default_factory=list)
    exploratory: bool = False  # made after the verdict, without influence on it; the page says so
    template: str = "evidence"  # file in templates/sections/, without .html
    values: Mapping[str, Any] = field(default_factory=dict)  # further values for a template other than "evidence"


Group = Literal["answer", "confirmation", "exploration", "test", "search", "study"]  # in the order of the page
MakeSection = Callable[[StudyData], Section | Sequence[Section] | None]  # None or []: there is nothing to show


@dataclass(frozen=True)
class SectionEntry:
    """One entry of the list of sections: where it is shown, and the function that makes it."""

    group: Group
    make: MakeSection


def build_sections(entries: Iterable[SectionEntry], data: StudyData) -> list[Section]:
    """Make the sections of a study, group by group, and within a group in the order of the list."""
    listed = list(entries)
    sections: list[Section] = []
    for group in get_args(Group):
        for entry in listed:
            if entry.group == group:
                made = entry.make(data)
                sections += [] if made is None else [made] if isinstance(made, Section) else made
    return sections
