"""What one section of the page is made of: values, no markup."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.report.ink import Picture


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
    """One piece of evidence: a heading that says what was found, and what shows it."""

    key: str  # unique on the page, fit for an address
    heading: str
    pictures: list[Picture] = field(default_factory=list)
    note: str = ""
    legend: list[str] = field(default_factory=list)  # strategies drawn
    result: bool = True  # shows results, so it says where the data are rendered
    table: Table | None = None
    shots: list[Shot] = field(default_factory=list)
    exploratory: bool = False  # came after the verdict and chose nothing, and says so
