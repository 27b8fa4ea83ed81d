"""Check the files written before the first trial: manifest, test labels, data card and thumbnails.

The digest of the data, which the log holds, is a checksum of the manifest, the test labels and the class names. It is
computed again from these files, without the images.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from harness.data.dataset import digest_of
from harness.doctor.case import Case, Finding
from harness.errors import HarnessError
from harness.results.compressed import read_arrays
from harness.results.csv import unquote
from harness.results.stored_study import read_object


class _Wrong(Exception):
    """A file that is wrong; the message says what is wrong with it."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(what)
        self.path = path


def check(case: Case) -> Iterator[Finding]:
    """Check that the four files exist, can be read and fit their checksums."""
    if not case.created:
        return  # they are written before the first event, so without it nothing is known about them
    try:
        count, case.classes = _checked(case)
        fault = archive_fault(case.folder.thumbnails, ("images", "labels"))
        if fault:
            raise _Wrong(case.folder.thumbnails, fault)
    except _Wrong as wrong:
        yield Finding(
            wrong.path.name,
            str(wrong),
            "the report, MLflow or the scoring of the test split needs it",
            "--fix writes the data's files again, if the images are at hand.",
            lambda: case.rebuilder.data_files(),
        )
    else:
        case.checked.append(f"{count} images of the manifest")


def _checked(case: Case) -> tuple[int, tuple[str, ...]]:
    """Return the number of images and the class names; raise _Wrong for the first file that is not as written."""
    folder, wanted = case.folder, case.fingerprint.get("data digest")
    try:
        if not folder.data_card.exists():
            raise _Wrong(folder.data_card, "it is gone")
        card = read_object(folder.data_card)
        names = [str(entry["name"]) for entry in card["classes"]]
    except (HarnessError, KeyError, TypeError):
        raise _Wrong(folder.data_card, "it cannot be read") from None
    if card.get("digest") != wanted:
        raise _Wrong(folder.data_card, "its digest of the data differs from the log's")
    manifest, tests = _table(folder.manifest), _table(folder.test_labels)
    try:
        manifest.loc[manifest["split"] == "test", "label"] = [names[int(label)] for label in tests["label"]]
        labels = [names.index(label) for label in manifest["label"]]
        digest = digest_of(manifest.assign(label=labels), tuple(names))
    except (ValueError, KeyError, IndexError, TypeError):  # a column is missing, or holds something else
        digest = None
    if digest != wanted:
        raise _Wrong(folder.manifest, "it and the test labels do not give the data's digest")
    return len(manifest), tuple(names)


def _table(path: Path) -> pd.DataFrame:
    """Read a CSV file with every cell as text."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise _Wrong(path, "it is gone") from None
    except (OSError, ValueError):  # pandas' own errors are ValueErrors
        raise _Wrong(path, "it cannot be read") from None
    for name in table.columns:  # remove the apostrophes that protect spreadsheets
        table[name] = table[name].map(unquote)
    return table


def archive_fault(path: Path, names: tuple[str, ...]) -> str | None:
    """Return what is wrong with an .npz file that must hold these arrays; None if nothing is. Every byte is read."""
    if not path.exists():
        return "it is gone"
    try:
        stored = read_arrays(path)
        with zipfile.ZipFile(path) as archive:
            torn = archive.testzip()  # numpy does not read as far as the checksums
    except (HarnessError, OSError, zipfile.BadZipFile):
        return "it cannot be read"
    if torn is not None:
        return f"its array {torn} is damaged"
    lacking = next((name for name in names if name not in stored), None)
    return f"it lacks {lacking}" if lacking is not None else None
