"""Writing what the report is made of: whole or not at all, and inert in a spreadsheet."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

_FORMULA = re.compile(r"^[=+\-@\t\r]")
_NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")


def write_whole(path: Path, text: str) -> None:
    """Write under a temporary name, sync, rename: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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


def quoted(value: object) -> object:
    """A text that begins with = + - @ (or a tab or return), and is no plain number, behind an apostrophe."""
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.match(value):
        return f"'{value}"
    return value
