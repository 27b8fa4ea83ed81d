"""What was written before trial one: manifest, test labels, data card, thumbnails. Are they there, and unchanged?

The digest of the data, which the log keeps, is a checksum of what manifest, test labels and class names say: it is
computed again from them, without an image.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from harness.data.dataset import digest_of
from harness.doctor.case import Case, Finding
from harness.results.csv import unquoted


class _Wrong(Exception):
    """What is wrong with a file, and which."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(what)
        self.path = path


def check(case: Case) -> Iterator[Finding]:
    """The four files are there and can be read, and their checksums fit."""
    if not case.created:
        return  # written before the first event: nothing speaks of them yet
    try:
        count, case.classes = _checked(case)
        fault = archive_fault(case.folder.thumbnails, ("images", "labels"))
        if fault:
            raise _Wrong(case.folder.thumbnails, fault)
    except _Wrong as wrong:
        yield Finding(
            wrong.path.name,
            str(wrong),
            "the report, the scoring of the test split or MLflow miss it",
            "--fix writes the data's files again, where the images are at hand.",
            lambda: case.rebuilder.data_files(),
        )
    else:
        case.checked.append(f"{count} images of the manifest")


def _checked(case: Case) -> tuple[int, tuple[str, ...]]:
    """Number of images and classes; raises _Wrong with the first file that is not as it was written."""
    folder, wanted = case.folder, case.fingerprint.get("data digest")
    try:
        card = json.loads(folder.data_card.read_text(encoding="utf-8"))
        names = [str(entry["name"]) for entry in card["classes"]]
    except FileNotFoundError:
        raise _Wrong(folder.data_card, "it is gone") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise _Wrong(folder.data_card, "it cannot be read") from None
    if card.get("digest") != wanted:
        raise _Wrong(folder.data_card, "its digest of the data is not the log's")
    manifest, tests = _table(folder.manifest), _table(folder.test_labels)
    try:
        manifest.loc[manifest["split"] == "test", "label"] = [names[int(label)] for label in tests["label"]]
        labels = [names.index(label) for label in manifest["label"]]
        digest = digest_of(manifest.assign(label=labels), tuple(names))
    except (ValueError, KeyError, IndexError, TypeError):  # a column is missing, or holds something else
        digest = None
    if digest != wanted:
        raise _Wrong(folder.manifest, "what it and the test labels say does not give the data's digest")
    return len(manifest), tuple(names)


def _table(path: Path) -> pd.DataFrame:
    """A CSV file, every cell as its text."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise _Wrong(path, "it is gone") from None
    except (OSError, ValueError):  # pandas' own errors are ValueErrors
        raise _Wrong(path, "it cannot be read") from None
    for name in table.columns:  # as they were before a spreadsheet was thought of
        table[name] = table[name].map(unquoted)
    return table


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
