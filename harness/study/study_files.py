"""Write the files that a study's folder holds before its first trial.

The coordinator writes them; the doctor writes the data's files again if they are damaged. A file that holds already
what would be written is left alone.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.atomic import atomic_path, atomic_write
from harness.data.card import data_card
from harness.data.composite import composite
from harness.errors import HarnessError
from harness.results.compressed import read_arrays
from harness.results.csv import csv_text
from harness.results.events import first_event
from harness.results.names import SEARCH_SPLIT
from harness.results.paths import StudyFolder
from harness.results.stored_study import object_or_empty, stored_document
from harness.study.identity import without_passwords
from harness.study.prepare import Prepared


def write_data(prepared: Prepared) -> None:
    """Write the files about the images that are missing or differ: manifest, test labels, data card, thumbnails."""
    folder, dataset, study = prepared.folder, prepared.dataset, prepared.study
    folder.path.mkdir(parents=True, exist_ok=True)
    side, opened = max(prepared.context.images).side, prepared.data
    card = data_card(dataset, study.data, prepared.parts, side, opened.findings, opened.value_range)
    table = dataset.table.drop(columns="near", errors="ignore")  # numbers of clusters say nothing to a reader
    manifest = table.assign(split=prepared.parts).rename_axis("row").reset_index()
    names = np.array(dataset.classes, dtype=object)
    manifest["label"] = np.where(prepared.parts == "test", "", names[dataset.table["label"].to_numpy(np.int64)])
    test = pd.DataFrame({"row": prepared.test_rows, "label": dataset.table["label"].to_numpy()[prepared.test_rows]})
    # The manifest is for people and MLflow, so its texts may be quoted: the program finds an image by the number of its
    # row. The test labels, which the program reads back, are numbers only.
    _write_text(folder.manifest, csv_text(manifest))
    _write_text(folder.test_labels, test.to_csv(index=False))
    _write_text(folder.data_card, json.dumps(card, indent=1, ensure_ascii=True))
    write_thumbnails(prepared)


def write_thumbnails(prepared: Prepared, per_class: int = 6) -> None:
    """Write a few training images of each class, for the data card on the page."""
    size = min(prepared.context.images)
    images = np.load(prepared.context.images[size], mmap_mode="r")
    train, _ = prepared.context.splits[SEARCH_SPLIT]
    labels = prepared.context.labels[train]
    rng = np.random.default_rng(prepared.study.seed)
    rows = np.concatenate(
        [rng.permutation(train[labels == label])[:per_class] for label in range(len(prepared.context.classes))]
    ).astype(np.int64)
    chosen = np.ascontiguousarray(images[rows])
    small = composite(chosen)
    if _holds(prepared.folder.thumbnails, {"images": small, "labels": prepared.context.labels[rows]}):
        return
    with atomic_path(prepared.folder.thumbnails) as temporary:
        np.savez_compressed(temporary, images=small, labels=prepared.context.labels[rows])


def _write_text(path: Path, text: str) -> None:
    content = text.encode()
    with contextlib.suppress(OSError):
        if path.stat().st_size == len(content) and path.read_bytes() == content:
            return
    atomic_write(path, content)


def _holds(path: Path, arrays: Mapping[str, NDArray[Any]]) -> bool:
    """Whether an .npz file can be read and holds exactly these arrays."""
    try:
        stored = read_arrays(path)
    except HarnessError:
        return False
    return stored.keys() == arrays.keys() and all(np.array_equal(stored[name], arrays[name]) for name in arrays)


def left_without_log(folder: StudyFolder) -> list[str]:
    """Return the names of results that lie in a study's folder although its log holds no event; [] if it holds one.

    A study that was killed before its first event has none of these files.
    """
    if first_event(folder.events) is not None:
        return []
    folders = [path for path in (folder.checkpoints, folder.predictions) if path.is_dir() and any(path.iterdir())]
    return [path.name for path in (*folders, folder.study_json) if path.exists()]


def write_study(prepared: Prepared) -> None:
    """Write the resolved study and its fingerprint to study.json."""
    document = {"name": prepared.name, "study": without_passwords(prepared.study), "fingerprint": prepared.fingerprint}
    atomic_write(prepared.folder.study_json, json.dumps(document, indent=1, ensure_ascii=True))


def update_stored_study(prepared: Prepared) -> None:
    """Update the keys of study.json that may change without training: description, report and addresses."""
    before = object_or_empty(prepared.folder.study_json)
    try:
        sound = before == stored_document(prepared.folder)
    except HarnessError:
        sound = False
    if not sound:  # damaged, or of another study: write what studies/NAME.yaml says
        write_study(prepared)
        return
    now = without_passwords(prepared.study)
    updates = {name: now[name] for name in ("description", "report", "tracking_uri", "storage")}
    if any(before["study"].get(name) != value for name, value in updates.items()):
        before["study"].update(updates)
        atomic_write(prepared.folder.study_json, json.dumps(before, indent=1, ensure_ascii=True))
