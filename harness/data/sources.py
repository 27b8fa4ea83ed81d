"""From a folder or a table to a listing of its images; what is left aside is counted by reason."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from harness.config.study import CsvSource, DataConfig, FolderSource, TorchvisionSource
from harness.data.decode import SUFFIXES
from harness.data.listing import Listing, Sample, by_bytes
from harness.data.names import clean, listed
from harness.errors import ConfigError, DataError

PART_NAMES = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "dev": "validation", "test": "test", "testing": "test",
}  # fmt: skip


def list_source(config: DataConfig, *, cache: Path) -> Listing:
    """The images of `config.source`.

    Raises:
        ConfigError: no source is named.
        DataError: the folder or table is missing or cannot be used as it is.
        ResourceError: a download is neither cached nor reachable.
    """
    if config.source is None:
        raise ConfigError(config.wanted or "this study names no data: give them as DATA=<folder or CSV file>")
    if isinstance(config.source, FolderSource):
        return _folder(Path(config.source.folder).expanduser())
    if isinstance(config.source, CsvSource):
        return _csv(Path(config.source.csv).expanduser(), config.split.group)
    if isinstance(config.source, TorchvisionSource):
        from harness.data.torchvision_source import list_torchvision  # imports torch: seconds

        return list_torchvision(config.source.torchvision, cache=cache)
    from harness.data.rendered_source import list_rendered

    return list_rendered(cache=cache)


# --- a folder of classes ------------------------------------------------------------------------------------


def _folder(given: Path) -> Listing:
    if not given.is_dir():
        what = "is not a folder" if given.exists() else "does not exist"
        raise DataError(
            f"the data folder {clean(str(given))} {what}; it must hold one folder of images for each class, "
            "or train/, val/ and test/ with those inside."
        )
    root = given.resolve()
    ignored: Counter[str] = Counter()
    tops = [entry for entry in _entries(root) if _usable_folder(entry, root, [root], ignored)]
    for entry in _entries(root):
        if not entry.is_dir():
            reason = _unwanted_file(entry, root) or "image outside a class folder"
            ignored[reason] += 1
    parts = {entry.name: PART_NAMES[entry.name.casefold()] for entry in tops if _is_part(entry.name)}
    parted = {entry.name for entry in tops if entry.name in parts and _holds_folders(Path(entry.path))}
    if parted and len(parted) != len(tops):
        others = sorted({clean(entry.name) for entry in tops} - parted)
        raise DataError(
            f"the data folder holds parts ({', '.join(sorted(parted))}) and other folders beside them "
            f"({', '.join(others[:5])}): keep either parts or classes at the top."
        )
    found: dict[str, tuple[Path, Sample]] = {}
    clashes: list[str] = []
    class_folders: dict[str, set[str]] = {}
    for top in tops:
        folder = Path(top.path)
        part = parts[top.name] if parted else ""
        if parted:
            homes = [
                Path(e.path) for e in _entries(folder) if _usable_folder(e, root, [root, folder.resolve()], ignored)
            ]
            for entry in _entries(folder):
                if not entry.is_dir():
                    ignored[_unwanted_file(entry, root) or "image outside a class folder"] += 1
        else:
            homes = [folder]
        for home in homes:
            label = clean(home.name)
            class_folders.setdefault(f"{clean(home.parent.name) if parted else ''}/{label}", set()).add(home.name)
            for file in _files(home, root, [root, home.resolve()], ignored):
                shown = clean(file.relative_to(given.resolve()).as_posix())
                if shown in found:
                    clashes.append(shown)
                found[shown] = (file, Sample(shown, label, fixed_split=part))
    clashes += [f"class folder {key.lstrip('/')}" for key, names in class_folders.items() if len(names) > 1]
    if clashes:
        raise DataError(
            "names that differ only in how their characters are encoded stand for one another; rename:\n"
            + listed(sorted(clashes))
        )
    if not found:
        left = "; ".join(f"{count} x {reason}" for reason, count in sorted(ignored.items()))
        raise DataError(
            f"the data folder {clean(str(given))} holds no images in class folders"
            + (f" (left aside: {left})" if left else "")
            + "; it must hold one folder of images for each class."
        )
    order = sorted(found, key=by_bytes)
    files = [found[path][0] for path in order]
    classes = sorted({key.partition("/")[2] for key in class_folders}, key=by_bytes)
    return Listing(
        name=clean(root.name) or "images",
        source=f"folder {clean(root.name)}",
        samples=tuple(found[path][1] for path in order),
        fetch=lambda index: files[index],
        ignored=ignored,
        classes=tuple(classes),
        root=root,
    )


def _is_part(name: str) -> bool:
    return name.casefold() in PART_NAMES


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        return sorted(found, key=lambda entry: os.fsencode(entry.name))


def _holds_folders(folder: Path) -> bool:
    return any(entry.is_dir() and not _hidden(entry.name) for entry in _entries(folder))


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _usable_folder(entry: os.DirEntry[str], root: Path, above: list[Path], ignored: Counter[str]) -> bool:
    """Whether to walk into this entry; counts what is left aside. Links to folders are never followed."""
    if not entry.is_dir():
        return False
    if _hidden(entry.name):
        ignored["hidden folder"] += 1
        return False
    if entry.is_symlink():
        target = Path(entry.path).resolve()
        if target in above:
            ignored["link cycle"] += 1
        elif target.is_relative_to(root):
            ignored["link to a folder that is read under its own name"] += 1
        else:
            ignored["link out of the data folder"] += 1
        return False
    return True


def _unwanted_file(entry: os.DirEntry[str], root: Path) -> str | None:
    """Why this entry is no image to read, or None."""
    if entry.name.startswith(".") or entry.name.casefold() in ("thumbs.db", "desktop.ini"):
        return "hidden or system file"
    if os.path.splitext(entry.name)[1].casefold() not in SUFFIXES:  # noqa: PTH122 (the name may be no valid path)
        return "not an image by its suffix"
    if entry.is_symlink():
        try:
            target = Path(entry.path).resolve(strict=True)
        except OSError:
            return "link that leads nowhere"
        if not target.is_relative_to(root):
            return "link out of the data folder"
        if not target.is_file():
            return "not a regular file"
    elif not entry.is_file():
        return "not a regular file"
    return None


def _files(folder: Path, root: Path, above: list[Path], ignored: Counter[str]) -> Iterator[Path]:
    """Image files below a class folder, folders inside it included."""
    for entry in _entries(folder):
        if entry.is_dir():
            if _usable_folder(entry, root, above, ignored):
                path = Path(entry.path)
                yield from _files(path, root, [*above, path], ignored)
        elif (reason := _unwanted_file(entry, root)) is not None:
            ignored[reason] += 1
        else:
            yield Path(entry.path)


# --- a table ------------------------------------------------------------------------------------------------


def _csv(given: Path, group: str | None) -> Listing:
    if not given.is_file():
        raise DataError(
            f"the table {clean(str(given))} does not exist; it must be a CSV file with the columns path and label."
        )
    try:
        table = pd.read_csv(given, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"the table {clean(given.name)} cannot be read as CSV in UTF-8: {error}") from None
    columns = [str(name).strip() for name in table.columns]
    table.columns = pd.Index(columns)
    missing = [name for name in ("path", "label") if name not in columns]
    if missing:
        raise DataError(
            f"the table {clean(given.name)} lacks the column {' and '.join(missing)}; "
            f"it has {', '.join(clean(name) for name in columns)}."
        )
    column = group if group in columns else ("group" if "group" in columns and group is None else None)
    root, faults = given.parent.resolve(), list[str]()
    rows: dict[str, tuple[Path, Sample]] = {}
    written: dict[str, str] = {}  # how each label stands in the table
    for number, row in enumerate(table.to_dict("records"), start=2):
        path, label = str(row["path"]).strip(), clean(str(row["label"]).strip())
        part = str(row.get("split", "")).strip()
        where = f"line {number}: "
        if not path or not label:
            faults.append(f"{where}{'path' if not path else 'label'} is empty")
            continue
        if written.setdefault(label, str(row["label"]).strip()) != str(row["label"]).strip():
            faults.append(f"{where}the label {label} is written in another encoding than above")
        if part and not _is_part(part):
            faults.append(f"{where}split must be train, validation, test or empty, but is {clean(part)!r}")
        if column is not None and not str(row[column]).strip():
            faults.append(f"{where}the group column {clean(column)} is empty")
        file = Path(os.path.normpath(root / path))  # resolve() would follow links
        shown = clean(Path(os.path.relpath(file, root)).as_posix())
        if not file.is_file():
            faults.append(f"{where}{shown} does not exist")
        if shown in rows:
            faults.append(f"{where}{shown} is listed twice")
        key = clean(str(row[column]).strip()) if column is not None else ""
        rows[shown] = (file, Sample(shown, label, key, PART_NAMES.get(part.casefold(), "")))
    if faults:
        raise DataError(f"the table {clean(given.name)} has {len(faults)} faults:\n{listed(faults, 20)}")
    if not rows:
        raise DataError(f"the table {clean(given.name)} lists no images.")
    order = sorted(rows, key=by_bytes)
    files = [rows[path][0] for path in order]
    return Listing(
        name=clean(unicodedata.normalize("NFC", given.stem)),
        source=f"table {clean(given.name)}",
        samples=tuple(rows[path][1] for path in order),
        fetch=lambda index: files[index],
        classes=tuple(sorted({sample.label for _, sample in rows.values()}, key=by_bytes)),
        group_rule=f"column {clean(column)}" if column is not None else None,
        root=root,
    )
