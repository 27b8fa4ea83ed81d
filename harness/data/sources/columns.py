"""The columns of a table: which of them holds paths, labels, parts and groups, by their names and values."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from harness.config.data import ColumnsConfig
from harness.data.sources.names import part_of, shortly
from harness.data.sources.sheet import Sheet
from harness.errors import DataError
from harness.safe_text import escape_name, listed

# Usual names, the first one before all others. Compared in lower case, with _ for blanks, dots and hyphens.
_USUAL = {
    "path": "path file filename file_name filepath file_path file_names image images img image_path img_path "
    "image_file "
    "img_file image_name img_name image_filename image_file_name image_id img_id imageid id photo picture",
    "label": "label labels class classes class_name classname class_label target targets category diagnosis dx "
    "label_name "
    "class_id label_id cell_type celltype species y",
    "split": "split set partition subset fold part usage",
    "group": "group groups group_id",
}
_GROUP_LIKE = re.compile(
    r"(?:patient|subject|donor|person|participant|case|animal|mouse|slide|smear|specimen|biopsy|sample|lesion|study|"
    r"series|plate|well|site|hospital|center|centre|batch|scan|video)s?(?:_?(?:id|no|nr|number|name|code|barcode))?"
)
_ONE, _ZERO = re.compile(r"1(?:\.0*)?"), re.compile(r"0(?:\.0*)?")
_WHOLE = re.compile(r"(-?\d+)(?:\.0*)?")
_MOST_LINES = 20


@dataclass(frozen=True)
class Columns:
    """Names of the columns that are read, and what was assumed about them."""

    path: str
    label: str | None  # None if there is one column for each class
    one_hot: tuple[str, ...]  # these columns
    split: str | None
    group: str | None
    reading: tuple[str, ...]
    warnings: tuple[str, ...]


def names_paths_and_labels(columns: list[str], given: ColumnsConfig) -> bool:
    """Return whether there are columns for paths and labels by their names."""
    return all((getattr(given, role) in columns) or _candidates(columns, role) for role in ("path", "label"))


def find_columns(sheet: Sheet, given: ColumnsConfig, group: str | None, holds_files: Callable[[str], bool]) -> Columns:
    """Find the columns of a table.

    Args:
        given: names from the study file.
        group: `data.split.group`; a column if there is one of this name.
        holds_files: whether the files exist that a column names.

    Raises:
        DataError: a column is missing, or several may be meant.
    """
    reading: list[str] = []
    warnings: list[str] = []
    path = _named(sheet, "path", given.path, reading, lambda found: [c for c in found if holds_files(c)] or found)
    label = _named(sheet, "label", given.label, reading, lambda found: _same_labels(sheet, found))
    split = _split(sheet, given.split, reading, warnings, {path, label})
    by_group = _group(sheet, group)
    one_hot: tuple[str, ...] = ()
    if path is not None and label is None:
        one_hot = _one_hot(sheet, {path, split, by_group} - {None}, reading)
    missing = [role for role, found in (("path", path), ("label", label or one_hot)) if not found]
    if missing:
        raise DataError(
            f"the table {sheet.name} must have the columns path and label, but {' and '.join(missing)} is missing; it "
            f"has {sheet.shown_columns()}. Name the right ones in data.columns: "
            f"{{{', '.join(f'{role}: COLUMN' for role in missing)}}}."
        )
    assert path is not None
    if by_group is None and group is None:
        warnings += _offers(sheet, {path, label, split} - {None})
    return Columns(path, label, one_hot, split, by_group, tuple(reading), tuple(warnings))


def whole_numbers(values: list[str]) -> list[str]:
    """Return integers that were stored as floats (`1.0`) as integers, if all values are integers."""
    matches = [_WHOLE.fullmatch(value) for value in values]
    whole = all(match is not None or not value for match, value in zip(matches, values, strict=True))
    if not whole or not any("." in value for value in values):
        return values
    return [match[1] if match is not None else "" for match in matches]


def _plain(column: str) -> str:
    return re.sub(r"[\s.\-]+", "_", column.strip().casefold())


def _candidates(columns: list[str], role: str) -> list[str]:
    """Return the columns that the role's own name fits, or else those with another usual name."""
    own, *others = _USUAL[role].split()
    return [c for c in columns if _plain(c) == own] or [c for c in columns if _plain(c) in others]


def _named(
    sheet: Sheet,
    role: str,
    given: str | None,
    reading: list[str],
    fewer: Callable[[list[str]], list[str]] = lambda found: found,
) -> str | None:
    """Return the column of a role; `fewer` chooses among several by their values."""
    if given is not None:
        if given not in sheet.columns:
            raise DataError(
                f"data.columns.{role} must name a column of {sheet.name}, but there is no {escape_name(given)!r}; it "
                f"has {sheet.shown_columns()}."
            )
        return given
    found = _candidates(sheet.columns, role)
    if len(found) > 1:
        found = fewer(found)
    if len(found) > 1:
        shown = [escape_name(column) for column in found]
        raise DataError(
            f"the table {sheet.name} has several columns that may hold the {role}: {', '.join(shown)}; say which one "
            f"in the study file, as in data.columns: {{{role}: {shown[0]}}}."
        )
    if found and found[0] != role:
        reading.append(f"The column {escape_name(found[0])} of {sheet.name} was read as the {role}.")
    return found[0] if found else None


def _same_labels(sheet: Sheet, found: list[str]) -> list[str]:
    """Return one of the columns if they say the same, such as a class's number and its name: the name."""
    values = {column: sheet.values(column) for column in found}
    first = values[found[0]]
    for column in found[1:]:
        pairs = set(zip(first, values[column], strict=True))
        if not len(pairs) == len(set(first)) == len(set(values[column])):
            return found
    texts = [column for column in found if not all(_WHOLE.fullmatch(value) for value in values[column])]
    return texts[:1] or found[:1]


def _split(
    sheet: Sheet, given: str | None, reading: list[str], warnings: list[str], taken: set[str | None]
) -> str | None:
    if given is not None:
        return _named(sheet, "split", given, reading)
    found = [column for column in _candidates(sheet.columns, "split") if column not in taken]
    usable = [column for column in found if column == "split" or _says_parts(sheet, column)]
    if len(usable) > 1:
        shown = [escape_name(column) for column in usable]
        raise DataError(
            f"the table {sheet.name} has several columns that may hold the split: {', '.join(shown)}; say which one in "
            f"the study file, as in data.columns: {{split: {shown[0]}}}."
        )
    for column in found:
        if column not in usable:
            values = sorted({value for value in sheet.values(column) if value})
            warnings.append(
                f"The column {escape_name(column)} of {sheet.name} is not used: it holds "
                f"{shortly([escape_name(value) for value in values])}, not train, validation and test. To keep images "
                f"of one value in one part of the split, set data.split.group: {escape_name(column)}."
            )
    if usable and usable[0] != "split":
        reading.append(f"The column {escape_name(usable[0])} of {sheet.name} was read as the split.")
    return usable[0] if usable else None


def _says_parts(sheet: Sheet, column: str) -> bool:
    """Return whether a column holds parts; if some values are none, the lines with them are faults."""
    values = {value for value in sheet.values(column) if value}
    return any(part_of(value) is not None for value in values)


def _group(sheet: Sheet, group: str | None) -> str | None:
    if group is None:
        found = _candidates(sheet.columns, "group")
        if len(found) > 1:
            shown = [escape_name(column) for column in found]
            raise DataError(
                f"the table {sheet.name} has several columns that may hold the group: {', '.join(shown)}; say which "
                f"one in the study file, as in data.split.group: {shown[0]}."
            )
        return found[0] if found else None
    if group in sheet.columns:
        return group
    found = [column for column in sheet.columns if column and _plain(column) == _plain(group)]
    return found[0] if len(found) == 1 else None


def _offers(sheet: Sheet, taken: set[str | None]) -> list[str]:
    """Return a warning for the first column that looks like a group: patient, slide, well or the like."""
    for column in sheet.columns:
        if column in taken or not _GROUP_LIKE.fullmatch(_plain(column)):
            continue
        values = [value for value in sheet.values(column) if value]
        if 1 < len(set(values)) < len(values):
            shown = escape_name(column)
            return [
                f"The column {shown} of {sheet.name} has {len(set(values))} values for {len(values)} images, but no "
                f"groups are set: if images of one {shown} are alike, keep them in one part of the split with "
                f"data.split.group: {shown}."
            ]
    return []


def _one_hot(sheet: Sheet, taken: set[str | None], reading: list[str]) -> tuple[str, ...]:
    """Return the columns that hold 1 for one class and 0 for the others; empty if there are none.

    Raises:
        DataError: there are such columns, but some lines have no 1 or several.
    """
    found = []
    for column in sheet.columns:
        if column and column not in taken:
            values = sheet.values(column)
            if values and all(_ONE.fullmatch(value) or _ZERO.fullmatch(value) for value in values):
                found.append(column)
    if len(found) < 2:
        return ()
    ones = {column: [bool(_ONE.fullmatch(value)) for value in sheet.values(column)] for column in found}
    sums = [sum(held) for held in zip(*ones.values(), strict=True)]
    if any(n != 1 for n in sums) and len(found) > 2:  # one of them may be another fact, such as the sex
        others = [c for c in found if all(n - one == 1 for n, one in zip(sums, ones[c], strict=True))]
        if len(others) == 1:
            found.remove(others[0])
            reading.append(f"The column {escape_name(others[0])} of {sheet.name} was read as no class.")
            sums = [1] * len(sums)
    shown = shortly([escape_name(column) for column in found])
    wrong = [f"line {number}: {n} of them are 1" for (number, _), n in zip(sheet.lines, sums, strict=True) if n != 1]
    if wrong:
        raise DataError(
            f"the table {sheet.name} has no label column, and its columns of 0 and 1 ({shown}) cannot be the classes, "
            "because exactly one of them must be 1 in each line; give each image one class, or name the column in "
            f"data.columns: {{label: COLUMN}}.\n{listed(wrong, _MOST_LINES)}"
        )
    used = [column for column in found if any(ones[column])]
    unused = [escape_name(column) for column in found if column not in used]
    reading.append(
        f"The columns {shown} of {sheet.name} were read as the classes: each line has a 1 in one of them"
        + (f"; {shortly(unused)} is 1 in no line and is no class." if unused else ".")
    )
    return tuple(used)
