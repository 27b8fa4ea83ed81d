"""The source of images that a CSV file lists, with their labels and, if it has these columns, splits and groups."""

from __future__ import annotations

import csv
import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from harness.data.sources.folder import PART_NAMES, is_part
from harness.data.sources.listing import Listing, Sample, by_bytes
from harness.errors import DataError
from harness.safe_text import escape_name, listed

MAX_PATH = 4096  # characters, as in Linux
MAX_LABEL = 200  # characters of a label, a group or a part


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
    columns, lines = _read(given)
    column = group if group in columns else ("group" if "group" in columns and group is None else None)
    root, faults = given.parent.resolve(), list[str]()
    below = f"{root}{os.sep}"
    rows: dict[str, tuple[Path, Sample]] = {}
    written: dict[str, str] = {}  # each label as it is written in the table
    for number, cells in lines:
        where = f"line {number}: "
        if any(cells[len(columns) :]):
            faults.append(
                f"{where}it has {len(cells)} values for {len(columns)} columns; put values with a comma in quotes"
            )
            continue
        row = dict.fromkeys(columns, "") | dict(zip(columns, cells, strict=False))
        path, label, part = row["path"], escape_name(row["label"]), row.get("split", "")
        group_name = row[column] if column is not None else ""
        if not path or not label:
            faults.append(f"{where}{'path' if not path else 'label'} is empty")
            continue
        if (reason := _too_long(path, {"label": label, "split": part, "group": group_name})) is not None:
            faults.append(f"{where}{reason}")
            continue
        if written.setdefault(label, row["label"]) != row["label"]:
            faults.append(f"{where}the label {label} is encoded differently from the lines above")
        if part and not is_part(part):
            faults.append(f"{where}split must be train, validation, test or empty, but is {escape_name(part)!r}")
        if column is not None and not group_name:
            faults.append(f"{where}the group column {escape_name(column)} is empty")
        # not resolve(), which follows links; a Path for each of many thousand lines would take seconds
        file = os.path.normpath(path if path.startswith("/") else f"{root}/{path}")
        shown = escape_name(
            file[len(below) :] if file.startswith(below) else Path(os.path.relpath(file, root)).as_posix()
        )
        if (reason := _missing(file)) is not None:
            faults.append(f"{where}{_shortened(shown)} {reason}")
        if shown in rows:
            faults.append(f"{where}{_shortened(shown)} is listed twice")
        rows[shown] = (Path(file), Sample(shown, label, escape_name(group_name), PART_NAMES.get(part.casefold(), "")))
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
        split_from="column" if any(sample.fixed_split for _, sample in rows.values()) else "drawn",
    )


def _read(given: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the column names of a CSV file and its other lines, each with the number of its last line in the file.

    Raises:
        DataError: it is not CSV in UTF-8, or lacks a column.
    """
    name = escape_name(given.name)
    lines: list[tuple[int, list[str]]] = []
    try:
        with given.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(_without_nul(stream, name), skipinitialspace=True, strict=True)
            lines.extend((reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(cells))
    except UnicodeDecodeError as error:
        raise DataError(
            f"the table {name} must be CSV in UTF-8, but it has the byte {error.object[error.start]:#04x}, which is "
            'not; save it as UTF-8 (a spreadsheet calls this "CSV UTF-8").'
        ) from None
    except csv.Error as error:
        raise DataError(
            f"the table {name} cannot be read as CSV, line {reader.line_num}: {error}; a quotation mark may be missing "
            "or may not be doubled."
        ) from None
    except OSError as error:
        raise DataError(f"the table {name} cannot be opened ({error.strerror}).") from None
    if not lines:
        raise DataError(f"the table {name} must list images, but it is empty.")
    columns = lines[0][1]
    while not columns[-1]:  # spreadsheets write empty columns at the end
        columns.pop()
    shown = ", ".join(_shortened(escape_name(column)) for column in columns[:20])
    missing = [wanted for wanted in ("path", "label") if wanted not in columns]
    if missing:
        hint = "" if len(columns) > 1 else "; columns must be separated by commas"
        raise DataError(
            f"the table {name} must have the columns path and label, but {' and '.join(missing)} "
            f"is missing; it has {shown}{hint}."
        )
    if len(set(columns)) < len(columns):
        raise DataError(f"the table {name} must name each column once; it has {shown}.")
    return columns, lines[1:]


def _without_nul(stream: Iterable[str], name: str) -> Iterator[str]:
    for number, line in enumerate(stream, start=1):
        if "\0" in line:
            raise DataError(
                f"the table {name} must be text, but line {number} has a NUL character; save it as CSV in UTF-8."
            )
        yield line


def _too_long(path: str, texts: dict[str, str]) -> str | None:
    """Return which value of a line is longer than any that is meant; None if there is none."""
    if len(path) > MAX_PATH:
        return f"path has more than {MAX_PATH} characters; a quotation mark may be missing"
    name = next((name for name, text in texts.items() if len(text) > MAX_LABEL), None)
    return None if name is None else f"{name} has more than {MAX_LABEL} characters; a quotation mark may be missing"


def _missing(file: str) -> str | None:
    """Return why this file cannot be an image; None if it can."""
    try:
        return None if stat.S_ISREG(os.stat(file).st_mode) else "is not a file"  # noqa: PTH116 - see where it is called
    except (FileNotFoundError, NotADirectoryError):
        return "does not exist"
    except OSError as error:  # its name is too long, or a folder cannot be read
        return f"cannot be opened ({error.strerror})"


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_LABEL else f"{text[:MAX_LABEL]}…"
