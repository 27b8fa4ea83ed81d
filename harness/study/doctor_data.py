"""What was written before trial one: manifest, test labels, data card, thumbnails. Do they speak of the same images?

The digest of the data, which the log keeps, is a function of what manifest, test labels and class names say: it is
computed again from them, without an image.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.data.dataset import digest_of
from harness.data.listing import PARTS
from harness.report.files import unquoted
from harness.study.doctor_case import Case, Finding, Images

_PARTS = (*PARTS, "unused")


class _Wrong(Exception):
    """What is wrong with a file, and which."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(what)
        self.path = path


def check(case: Case) -> Iterator[Finding]:
    """The four files are there, can be read and fit each other and the log's digest."""
    if not case.created:
        return  # written before the first event: nothing speaks of them yet
    try:
        case.images = _consistent(case)
        _thumbnails(case)
    except _Wrong as wrong:
        yield Finding(
            wrong.path.name, str(wrong), "the report, the scoring of the test split or MLflow miss it",
            "--fix writes the data's files again, where the images are at hand.", lambda: case.rebuilder.data_files(),
        )  # fmt: skip
    else:
        case.checked.append(f"{case.images.count} images of the manifest")


def _consistent(case: Case) -> Images:
    """What the files say together; raises _Wrong with the first one that does not fit."""
    folder = case.folder
    card = _card(folder.data_card)
    names = [str(entry["name"]) for entry in card["classes"]]
    manifest = _table(folder.manifest, ["row", "path", "label", "group", "fixed_split", "sha256", "split"])
    if manifest["row"].tolist() != [str(row) for row in range(len(manifest))]:
        raise _Wrong(folder.manifest, "its rows do not count from 0 on")
    if not set(manifest["split"]) <= set(_PARTS):
        raise _Wrong(folder.manifest, "it names a part that does not exist")
    on_test = manifest["split"] == "test"
    if (manifest.loc[on_test, "label"] != "").any() or not set(manifest.loc[~on_test, "label"]) <= set(names):
        raise _Wrong(folder.manifest, "its labels are not those of the data card, or stand at test images")
    tests = _table(folder.test_labels, ["row", "label"])
    if tests["row"].tolist() != manifest.loc[on_test, "row"].tolist():
        raise _Wrong(folder.test_labels, "its rows are not the test images of the manifest")
    if not set(tests["label"]) <= {str(index) for index in range(len(names))}:
        raise _Wrong(folder.test_labels, "it holds a class that does not exist")
    labels = manifest["label"].to_numpy(dtype=object)
    labels[on_test.to_numpy()] = [names[int(label)] for label in tests["label"]]
    _counts(folder.data_card, card, manifest["split"].to_numpy(), labels)
    index = {name: number for number, name in enumerate(names)}
    table = manifest.assign(label=[index[label] for label in labels])
    wanted = case.fingerprint.get("data digest")
    if card.get("digest") != wanted:
        raise _Wrong(folder.data_card, "its digest of the data is not the log's")
    if digest_of(table, tuple(names)) != wanted:
        raise _Wrong(folder.manifest, "what it and the test labels say does not give the data's digest")
    on_test_rows, labels_of_test = (tests[name].to_numpy(dtype=np.int64) for name in ("row", "label"))
    return Images(len(manifest), tuple(names), on_test_rows, labels_of_test)


def _card(path: Path) -> dict[str, Any]:
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not all({"name", "count", *PARTS} <= set(entry) for entry in card["classes"]):
            raise ValueError
        return card
    except FileNotFoundError:
        raise _Wrong(path, "it is gone") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise _Wrong(path, "it cannot be read") from None


def _table(path: Path, columns: list[str]) -> pd.DataFrame:
    """A CSV file, every cell as its text."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise _Wrong(path, "it is gone") from None
    except (OSError, ValueError):  # pandas' own errors are ValueErrors
        raise _Wrong(path, "it cannot be read") from None
    for name in table.columns:  # as they were before a spreadsheet was thought of
        table[name] = table[name].map(unquoted)
    if not set(columns) <= set(table.columns):
        raise _Wrong(path, f"it lacks the column {next(name for name in columns if name not in table.columns)}")
    return table


def _counts(path: Path, card: dict[str, Any], split: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> None:
    """The card's numbers are those of the manifest."""
    counted = {part: int((split == part).sum()) for part in _PARTS}
    if card.get("images") != len(split):
        raise _Wrong(path, f"it counts {card.get('images')} images, and the manifest {len(split)}")
    if card.get("split") != counted:
        raise _Wrong(path, "it counts other parts than the manifest")
    for entry in card["classes"]:
        here = labels == entry["name"]
        if entry["count"] != int(here.sum()) or any(
            entry[part] != int((here & (split == part)).sum()) for part in PARTS
        ):
            raise _Wrong(path, f"it counts other images of class {entry['name']!r} than the manifest")


def _thumbnails(case: Case) -> None:
    path = case.folder.thumbnails
    fault = archive_fault(path, ("images", "labels"))
    if fault:
        raise _Wrong(path, fault)


def archive_fault(path: Path, names: tuple[str, ...]) -> str | None:
    """What is wrong with a file of arrays that must hold these; None: nothing. Every byte is read."""
    if not path.exists():
        return "it is gone"
    try:
        with zipfile.ZipFile(path) as archive:
            torn = archive.testzip()
        with np.load(path, allow_pickle=False) as stored:
            lacking = next((name for name in names if name not in stored.files), None)
            sizes = {name: stored[name].shape for name in stored.files}
    except Exception:  # a damaged archive fails in many ways: zipfile, zlib, numpy and the system each have their own
        return "it cannot be read"
    if torn is not None:
        return f"its array {torn} is damaged"
    return f"it lacks {lacking}" if lacking is not None or not sizes else None
