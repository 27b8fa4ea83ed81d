"""The source of images that a table lists, with their labels and, if it has these columns, splits and groups."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from harness.config.data import ColumnsConfig
from harness.data.sources.columns import Columns, find_columns, names_paths_and_labels, whole_numbers
from harness.data.sources.listing import Listing, Sample, by_bytes, told
from harness.data.sources.names import part_of
from harness.data.sources.sheet import Sheet, read_sheet, shortened
from harness.data.sources.table_paths import Finder, root_of
from harness.errors import DataError
from harness.safe_text import escape_name, listed

MAX_PATH = 4096  # characters, as in Linux
MAX_LABEL = 200  # characters of a label, a group or a part
_LIKE_MISSING = frozenset(
    ("na", "n/a", "nan", "none", "null", "nil", "-", "--", "?", ".", "#n/a", "missing", "unknown")
)


def list_table(
    given: Path, group: str | None = None, *, columns: ColumnsConfig | None = None, root: str | None = None
) -> Listing:
    """List the images of a table: text with a header line, whose values are separated by comma, semicolon, tab or |.

    Args:
        given: the file.
        group: name of the column with the groups; None takes the column `group` if there is one.
        columns: names of the columns with paths, labels and parts; without them the usual names are looked for.
        root: folder to which the paths are relative, itself relative to the table's folder; None takes that folder.

    Raises:
        DataError: the file is missing, cannot be read or lacks a column, or some of its lines have faults; all are
            listed.
    """
    columns = columns if columns is not None else ColumnsConfig()
    if not given.is_file():
        raise DataError(
            f"the table {escape_name(str(given))} does not exist; it must be a CSV file with the columns path and "
            "label."
        )
    sheet = read_sheet(given, lambda header: names_paths_and_labels(header, columns))
    folder = root_of(given, root)
    if not folder.is_dir():
        raise DataError(
            f"data.root must be the folder to which the paths of {sheet.name} are relative, but "
            f"{escape_name(str(folder))} is not a folder."
        )
    with told(sheet.reading):
        found = find_columns(sheet, columns, group, lambda column: _holds_files(sheet, column, folder))
    return _Lines(sheet, found, folder).listing(given)


def _holds_files(sheet: Sheet, column: str, folder: Path) -> bool:
    finder, values = Finder(folder, sheet.name), [value for value in sheet.values(column) if value][:20]
    finder.prepare(values)
    return bool(values) and all(finder.find(value)[0] is not None for value in values)


class _Lines:
    """The lines of one table as samples, or as faults."""

    def __init__(self, sheet: Sheet, columns: Columns, folder: Path) -> None:
        self.sheet, self.columns, self.folder = sheet, columns, folder
        self.finder = Finder(folder, sheet.name)
        self.paths = whole_numbers(sheet.values(columns.path))
        self.finder.prepare([value for value in self.paths if value])
        self.faults: list[str] = []
        self.rows: dict[str, tuple[str, Sample]] = {}
        self.lost = False  # whether a file does not exist

    def listing(self, given: Path) -> Listing:
        self._read()
        reading = (*self.sheet.reading, *self.columns.reading, *self.finder.reading())
        with told(reading):
            if self.faults:
                raise DataError(self._all_faults())
            if not self.rows:
                raise DataError(f"the table {self.sheet.name} must list images, but it has no lines below its header.")
        order = sorted(self.rows, key=by_bytes)
        files = [self.rows[path][0] for path in order]
        samples = tuple(self.rows[path][1] for path in order)
        group = self.columns.group
        return Listing(
            name=escape_name(unicodedata.normalize("NFC", given.stem)),
            source=f"table {self.sheet.name}",
            samples=samples,
            fetch=lambda index: Path(files[index]),
            classes=tuple(sorted({sample.label for sample in samples}, key=by_bytes)),
            group_rule=f"column {escape_name(group)}" if group is not None else None,
            root=self.folder,
            split_from="column" if any(sample.fixed_split for sample in samples) else "drawn",
            notes=reading,
            reading=reading,
            warnings=(*reading, *self.columns.warnings, *self._like_missing(samples), *_joined(samples)),
        )

    def _read(self) -> None:
        sheet, columns = self.sheet, self.columns
        labels = self._labels()
        groups = whole_numbers(sheet.values(columns.group)) if columns.group is not None else None
        written: dict[str, str] = {}  # each label as it is written in the table
        for row, (number, cells) in enumerate(sheet.lines):
            where = f"line {number}: "
            if any(cells[len(sheet.columns) :]):
                self.faults.append(
                    f"{where}it has {len(cells)} values for {len(sheet.columns)} columns; put values with a "
                    f"{'comma' if sheet.separator == ',' else 'separator'} in quotes"
                )
                continue
            path, label = self.paths[row], escape_name(labels[row])
            part = sheet.value(cells, columns.split) if columns.split is not None else ""
            group = groups[row] if groups is not None else ""
            if not path or not label:
                self.faults.append(f"{where}{'path' if not path else 'label'} is empty")
                continue
            if (reason := _too_long(path, {"label": label, "split": part, "group": group})) is not None:
                self.faults.append(f"{where}{reason}")
                continue
            if written.setdefault(label, labels[row]) != labels[row]:
                self.faults.append(f"{where}the label {label} is encoded differently from the lines above")
            named = part_of(part) if part else ""
            if named is None:
                self.faults.append(
                    f"{where}split must be train, validation, test or empty, but is {escape_name(part)!r}"
                )
            if groups is not None and not group:
                self.faults.append(f"{where}the group column {escape_name(columns.group or '')} is empty")
            file, reason = self.finder.find(path)
            shown = self.finder.shown(file) if file is not None else self.finder.place(path)
            if file is None:
                self.lost |= reason.startswith("does not exist")
                self.faults.append(f"{where}{shortened(shown)} {reason}")
            if shown in self.rows:
                self.faults.append(f"{where}{shortened(shown)} is listed twice")
            self.rows[shown] = (file or "", Sample(shown, label, escape_name(group), named or ""))

    def _labels(self) -> list[str]:
        """Return the label of each line as it is written; of columns of 0 and 1, the name of the column with the 1."""
        if self.columns.label is not None:
            return whole_numbers(self.sheet.values(self.columns.label))
        places = {self.sheet.columns.index(column): column for column in self.columns.one_hot}
        return [
            next(column for place, column in places.items() if float(cells[place]) == 1)
            for _, cells in self.sheet.lines
        ]

    def _all_faults(self) -> str:
        where = ""
        if self.lost:
            where = (
                f"\nPaths are relative to the folder {escape_name(str(self.folder))}{self.finder.hint or ''}; "
                "data.root names another one."
            )
        many = len(self.faults)
        said = f"{many} faults" if many != 1 else "1 fault"
        return f"the table {self.sheet.name} has {said}:\n{listed(self.faults, 20)}{where}"

    def _like_missing(self, samples: tuple[Sample, ...]) -> list[str]:
        counts: dict[str, int] = {}
        for sample in samples:
            if sample.label.casefold() in _LIKE_MISSING:
                counts[sample.label] = counts.get(sample.label, 0) + 1
        return [
            f"The label {label} of {count} images looks like a missing value, but is read as a class; data.classes: "
            f"{{drop: [{label}]}} leaves these images out."
            for label, count in sorted(counts.items())
        ]


def _joined(samples: tuple[Sample, ...]) -> list[str]:
    """Return a warning if some labels name several classes at once, such as `a|b` beside a and b."""
    labels = {sample.label for sample in samples}
    joined = [
        label
        for label in sorted(labels)
        if len(parts := [part.strip() for part in re.split(r"[|,;+&]", label)]) > 1 and labels.issuperset(parts)
    ]
    if not joined:
        return []
    return [
        f"{len(joined)} labels name several classes at once, such as {joined[0]!r}, and are classes of their own here: "
        "each image has one class. Leave them out with data.classes.drop, or merge them with data.classes.merge."
    ]


def _too_long(path: str, texts: dict[str, str]) -> str | None:
    """Return which value of a line is longer than any that is meant; None if there is none."""
    if len(path) > MAX_PATH:
        return f"path has more than {MAX_PATH} characters; a quotation mark may be missing"
    name = next((name for name, text in texts.items() if len(text) > MAX_LABEL), None)
    return None if name is None else f"{name} has more than {MAX_LABEL} characters; a quotation mark may be missing"
