"""The source of images that a CSV file lists, with their labels and, if it has these columns, splits and groups."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pandas as pd

from harness.data.sources.folder import PART_NAMES, is_part
from harness.data.sources.listing import Listing, Sample, by_bytes
from harness.errors import DataError
from harness.safe_text import escape_name, listed


def list_table(given: Path, group: str | None) -> Listing:
    """List the images of a CSV file with the columns path, label and, optionally, split and group.

    Args:
        given: the file. Paths in it are relative to its folder.
        group: name of the column with the groups; None takes the column `group` if there is one.

    Raises:
        DataError: the file is missing, cannot be read or lacks a column, or some of its lines have faults; all are
            listed.
    """
    if not given.is_file():
        raise DataError(
            f"the table {escape_name(str(given))} does not exist; it must be a CSV file with the columns path and "
            "label."
        )
    try:
        table = pd.read_csv(given, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"the table {escape_name(given.name)} cannot be read as CSV in UTF-8: {error}") from None
    columns = [str(name).strip() for name in table.columns]
    table.columns = pd.Index(columns)
    missing = [name for name in ("path", "label") if name not in columns]
    if missing:
        raise DataError(
            f"the table {escape_name(given.name)} must have the columns path and label, but {' and '.join(missing)} "
            f"is missing; it has {', '.join(escape_name(name) for name in columns)}."
        )
    column = group if group in columns else ("group" if "group" in columns and group is None else None)
    root, faults = given.parent.resolve(), list[str]()
    rows: dict[str, tuple[Path, Sample]] = {}
    written: dict[str, str] = {}  # each label as it is written in the table
    for number, row in enumerate(table.to_dict("records"), start=2):
        path, label = str(row["path"]).strip(), escape_name(str(row["label"]).strip())
        part = str(row.get("split", "")).strip()
        where = f"line {number}: "
        if not path or not label:
            faults.append(f"{where}{'path' if not path else 'label'} is empty")
            continue
        if written.setdefault(label, str(row["label"]).strip()) != str(row["label"]).strip():
            faults.append(f"{where}the label {label} is encoded differently from the lines above")
        if part and not is_part(part):
            faults.append(f"{where}split must be train, validation, test or empty, but is {escape_name(part)!r}")
        if column is not None and not str(row[column]).strip():
            faults.append(f"{where}the group column {escape_name(column)} is empty")
        file = Path(os.path.normpath(root / path))  # not resolve(), which follows links
        shown = escape_name(Path(os.path.relpath(file, root)).as_posix())
        if not file.is_file():
            faults.append(f"{where}{shown} does not exist")
        if shown in rows:
            faults.append(f"{where}{shown} is listed twice")
        key = escape_name(str(row[column]).strip()) if column is not None else ""
        rows[shown] = (file, Sample(shown, label, key, PART_NAMES.get(part.casefold(), "")))
    if faults:
        raise DataError(f"the table {escape_name(given.name)} has {len(faults)} faults:\n{listed(faults, 20)}")
    if not rows:
        raise DataError(f"the table {escape_name(given.name)} must list images, but it has no lines below its header.")
    order = sorted(rows, key=by_bytes)
    files = [rows[path][0] for path in order]
    return Listing(
        name=escape_name(unicodedata.normalize("NFC", given.stem)),
        source=f"table {escape_name(given.name)}",
        samples=tuple(rows[path][1] for path in order),
        fetch=lambda index: files[index],
        classes=tuple(sorted({sample.label for _, sample in rows.values()}, key=by_bytes)),
        group_rule=f"column {escape_name(column)}" if column is not None else None,
        root=root,
    )
