"""Tables as CSV that are inert in a spreadsheet."""

from __future__ import annotations

import re

import pandas as pd

_FORMULA = re.compile(r"^[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")  # full-width forms too, as Excel may read them
_NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")


def csv_text(table: pd.DataFrame) -> str:
    """The table as CSV; a text that a spreadsheet would read as a formula begins with an apostrophe."""
    safe = table.copy()
    for column in safe.columns:
        if not pd.api.types.is_numeric_dtype(safe[column]):
            safe[column] = safe[column].map(quoted)
    safe.columns = [quoted(str(column)) for column in safe.columns]
    return str(safe.to_csv(index=False, lineterminator="\n"))


def quoted(value: object) -> object:
    """A text that begins with = + - @ (or a tab or line break), and is no plain number, behind an apostrophe."""
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.match(value):
        return f"'{value}"
    return value
