"""Tables as CSV that are inert in a spreadsheet."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pandas as pd

_FORMULA = re.compile(r"^'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")  # full-width forms too, as Excel may read them
_NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")


def csv_text(table: pd.DataFrame) -> str:
    """The table as CSV; a text that a spreadsheet would read as a formula begins with an apostrophe."""
    texts = [name for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])]
    safe = table.assign(**{name: each_text(table[name], quoted) for name in texts})
    safe.columns = [quoted(str(column)) for column in safe.columns]
    return str(safe.to_csv(index=False, lineterminator="\n"))


def each_text(column: pd.Series[Any], change: Callable[[str], object]) -> pd.Series[Any]:
    """The column with its texts changed; one that stands in many rows is looked at once."""
    texts = [text for text in column.unique() if isinstance(text, str)]
    changed = {text: new for text in texts if (new := change(text)) != text}
    return column.map(lambda value: changed.get(value, value)) if changed else column


def unquoted(text: str) -> str:
    """A text as it was before `quoted`, which tells apostrophes that stood there before by one more."""
    return text[1:] if text.startswith("'") and quoted(text[1:]) == text else text


def quoted(value: object) -> object:
    """A text that begins with = + - @ (or a tab or line break), and is no plain number, behind an apostrophe."""
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.match(value):
        return f"'{value}"
    return value
