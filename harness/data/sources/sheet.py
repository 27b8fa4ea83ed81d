"""The text of a table: its encoding and separator, its column names and its lines.

What had to be assumed to read it, such as another separator than the comma, is kept as sentences.
"""

from __future__ import annotations

import codecs
import csv
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from harness.data.decoding.decode import SUFFIXES
from harness.data.sources.names import shortly
from harness.data.sources.tables_beside import SHEET_SUFFIXES
from harness.errors import DataError
from harness.safe_text import escape_name

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
MAX_SHOWN = 200  # characters of a name in a message
_SAID = re.compile(r"sep=([,;\t|])\s*")
_TRIED = 50  # lines that are read with each separator
_UTF16 = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}

Usable = Callable[[list[str]], bool]


@dataclass(frozen=True)
class Sheet:
    """A table as text. `lines` holds the number of the last line in the file and the values, without blanks around."""

    name: str  # of the file, escaped
    columns: list[str]
    lines: list[tuple[int, list[str]]]
    separator: str
    reading: tuple[str, ...] = ()  # what was assumed

    def value(self, cells: list[str], column: str) -> str:
        """Return the value of a line in a column; empty if the line is shorter."""
        place = self.columns.index(column)
        return cells[place] if place < len(cells) else ""

    def values(self, column: str) -> list[str]:
        """Return all values of a column."""
        place = self.columns.index(column)
        return [cells[place] if place < len(cells) else "" for _, cells in self.lines]

    def shown_columns(self) -> str:
        """Return the names of the columns for a message."""
        return shortly([shortened(escape_name(column)) for column in self.columns], 20)


def read_sheet(given: Path, usable: Usable) -> Sheet:
    """Read a table.

    Args:
        usable: whether column names hold what is needed; decides if lines can be split by several separators.

    Raises:
        DataError: it is not text in UTF-8 (or UTF-16 with its mark), not such a table, or empty.
    """
    name = escape_name(given.name)
    try:
        with given.open("rb") as binary:
            start = binary.read(4)
        if given.suffix.lower() in SHEET_SUFFIXES or start == b"PK\x03\x04" or start == b"\xd0\xcf\x11\xe0":
            raise DataError(f"the table {name} is a spreadsheet, which cannot be read; save it as CSV.")
        encoding = _UTF16.get(start[:2], "utf-8-sig")
        with given.open(encoding=encoding, newline="") as stream:
            head = list(islice(_without_nul(stream, name), _TRIED))
        said = _SAID.fullmatch(head[0]) if head else None  # as spreadsheets write it for each other
        separator = said[1] if said else _separator(head, usable, name)
        with given.open(encoding=encoding, newline="") as stream:
            lines = _cells(_without_nul(stream, name), separator, name, int(said is not None))
    except UnicodeError as error:
        what = (
            f"has the byte {error.object[error.start]:#04x}" if isinstance(error, UnicodeDecodeError) else "has bytes"
        )
        raise DataError(
            f"the table {name} must be CSV in UTF-8, but it {what}, which is not; save it as UTF-8 (a spreadsheet "
            "calls "
            'this "CSV UTF-8").'
        ) from None
    except OSError as error:
        raise DataError(f"the table {name} cannot be opened ({error.strerror}).") from None
    if not lines:
        raise DataError(f"the table {name} must list images, but it is empty.")
    columns = lines[0][1]
    while not columns[-1]:  # spreadsheets write empty columns at the end
        columns.pop()
    _check_header(columns, name, separator)
    body = lines[1:]
    reading = [] if separator == "," else [f"The table {name} was read with the separator {_said(separator)}."]
    longer = [number for number, cells in body if len(cells) > len(lines[0][1]) and not any(cells[len(columns) :])]
    if longer and len(longer) == len(body):
        reading.append(
            f"Each line of {name} ends with a {SEPARATORS[separator]} more than its header; the empty value behind it "
            "was left out."
        )
    return Sheet(name, columns, body, separator, tuple(reading))


def shortened(text: str) -> str:
    """Return at most 200 characters of a text."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _said(separator: str) -> str:
    return f"{'' if separator.isspace() else f'{separator} '}({SEPARATORS[separator]})"


def _separator(head: list[str], usable: Usable, name: str) -> str:
    """Return what separates the values, by the first lines."""
    found: dict[str, list[str]] = {}
    for separator in SEPARATORS:
        try:
            reader = csv.reader(head, delimiter=separator, skipinitialspace=separator != "\t")
            rows = [stripped for row in reader if any(stripped := [cell.strip() for cell in row])]
        except csv.Error:
            continue
        if rows and sum(bool(cell) for cell in rows[0]) > 1:
            found[separator] = rows[0]
    fitting = [separator for separator, columns in found.items() if usable(columns)]
    if len(fitting) > 1:
        said = " or ".join(SEPARATORS[separator] for separator in fitting)
        raise DataError(f"the columns of {name} may be separated by {said}; use one of them alone in the first line.")
    return fitting[0] if fitting else max(found, key=lambda separator: len(found[separator]), default=",")


def _cells(stream: Iterable[str], separator: str, name: str, skipped: int) -> list[tuple[int, list[str]]]:
    stream = islice(stream, skipped, None)
    reader = csv.reader(stream, delimiter=separator, skipinitialspace=separator != "\t", strict=True)
    lines: list[tuple[int, list[str]]] = []
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                lines.append((reader.line_num + skipped, stripped))
    except csv.Error as error:
        raise DataError(
            f"the table {name} cannot be read as CSV, line {reader.line_num + skipped}: {error}; a quotation mark may "
            "be missing or may not be doubled."
        ) from None
    return lines


def _check_header(columns: list[str], name: str, separator: str) -> None:
    shown = ", ".join(shortened(escape_name(column)) for column in columns[:20])
    if any(os.path.splitext(column)[1].casefold() in SUFFIXES for column in columns):  # noqa: PTH122
        raise DataError(
            f"the first line of the table {name} must name its columns, such as path{separator}label, but it is "
            f"{shown}; add that line."
        )
    if len(columns) < 2:
        raise DataError(
            f"the table {name} must have the columns path and label, but it has only {shown}; columns must be "
            "separated by commas (or by semicolons, tabs or |)."
        )
    named = [column for column in columns if column]
    if len(set(named)) < len(named):
        raise DataError(f"the table {name} must name each column once; it has {shown}.")


def _without_nul(stream: Iterable[str], name: str) -> Iterator[str]:
    for number, line in enumerate(stream, start=1):
        if "\0" in line:
            raise DataError(
                f"the table {name} must be text, but line {number} has a NUL character; save it as CSV in UTF-8."
            )
        yield line
