"""Writing what the report is made of: whole or not at all, and inert in a spreadsheet."""

from __future__ import annotations

import os
import re
from pathlib import Path

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
    safe = table.copy()
    for column in safe.columns:
        if not pd.api.types.is_numeric_dtype(safe[column]):
            safe[column] = safe[column].map(quoted)
    safe.columns = [quoted(str(column)) for column in safe.columns]
    return str(safe.to_csv(index=False, lineterminator="\n"))


def quoted(value: object) -> object:
    """A text that begins with = + - @ (or a tab or return), and is no plain number, behind an apostrophe."""
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.match(value):
        return f"'{value}"
    return value
