"""Write tables as CSV in which a spreadsheet finds no formula.

It is a file of its own because study, report and doctor all need it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pandas as pd

_FORMULA = re.compile(r"^'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")  # full-width forms too, as Excel may read them
_NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")


def csv_text(table: pd.DataFrame) -> str:
    """Return the table as CSV, with an apostrophe before each text that a spreadsheet would read as a formula."""
    texts = [name for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])]
    safe = table.assign(**{name: map_texts(table[name], quote) for name in texts})
    safe.columns = [quote(str(column)) for column in safe.columns]
    return str(safe.to_csv(index=False, lineterminator="\n"))


def map_texts(column: pd.Series[Any], change: Callable[[str], object]) -> pd.Series[Any]:
    """Return the column with `change` applied to its texts; a text that stands in many rows is changed once."""
    texts = [text for text in column.unique() if isinstance(text, str)]
    changed = {text: new for text in texts if (new := change(text)) != text}
    return column.map(lambda value: changed.get(value, value)) if changed else column


def unquote(text: str) -> str:
    """Undo `quote`. A text that had an apostrophe before was given one more, so both can be told apart."""
    return text[1:] if text.startswith("'") and quote(text[1:]) == text else text


def quote(value: object) -> object:
    """Put an apostrophe before a text that begins with = + - @, a tab or a line break and is not a plain number."""
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.match(value):
        return f"'{value}"
    return value
