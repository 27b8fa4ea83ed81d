"""Hints for images without folders of classes: a table that lies beside them, or labels in their file names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from harness.data.sources.names import shortly
from harness.data.sources.tree import Folder
from harness.safe_text import escape_name

TABLE_SUFFIXES = (".csv", ".tsv", ".txt")
SHEET_SUFFIXES = (".xlsx", ".xls", ".xlsm", ".ods")
_NO_TABLES = ("readme", "license", "licence", "requirements", "notes", "changelog")
_MOST_LABELS = 20


def tables_beside(node: Folder, shown: str, images: Folder | None = None) -> str:
    """Return a hint that names the tables in a folder and how to give them; empty if there are none.

    Args:
        shown: the data folder as messages name it.
        images: the folder inside that holds the images, if they are not beside the table.
    """
    files = [name for name, _, _ in node.others if not name.lower().startswith((".", *_NO_TABLES))]
    tables = [name for name in files if name.lower().endswith((".csv", ".tsv"))]
    tables = sorted(tables, key=lambda name: (not re.search("train|label|meta|annot|class", name.lower()), name))
    tables = tables or [name for name in files if name.lower().endswith(TABLE_SUFFIXES)]
    sheets = [name for name in files if name.lower().endswith(SHEET_SUFFIXES)]
    if not tables and not sheets:
        return ""
    if not tables:
        return f"; if {escape_name(sheets[0])} holds the labels, save it as CSV and give that file as DATA"
    place = f"{shown.rstrip('/')}/{node.within(tables[0])}"
    root = f" with data.root: {escape_name(images.name)}" if images is not None else ""
    also = f" (also {shortly([escape_name(name) for name in tables[1:]])})" if len(tables) > 1 else ""
    return (
        f"; the table {escape_name(tables[0])}{also} lies beside them: if it holds the labels, give DATA={place}{root}"
    )


def file_labels(names: Sequence[str]) -> str:
    """Return a hint that names the labels with which file names begin; empty if they do not evidently."""
    matches = [re.match(r"([^\W\d_]{2,})(?=[ _.\-(]*\d)", name) for name in names]
    if not names or any(match is None for match in matches):
        return ""
    counts = Counter(match[1] for match in matches if match is not None)
    if not 2 <= len(counts) <= _MOST_LABELS or min(counts.values()) < 2:
        return ""
    return f" (the file names begin with {shortly(sorted(map(escape_name, counts)))}, which may be the classes)"
