"""Write the files that a study's folder holds before its first trial.

The coordinator writes them; the doctor writes the data's files again if they are damaged.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from harness.atomic import atomic_path, atomic_write
from harness.data.card import data_card
from harness.results.csv import csv_text
from harness.results.names import SEARCH_SPLIT
from harness.study.identity import without_passwords
from harness.study.prepare import Prepared


def write_data(prepared: Prepared) -> None:
    """Write the files about the images: manifest, test labels, data card and thumbnails."""
    folder, dataset, study = prepared.folder, prepared.dataset, prepared.study
    folder.path.mkdir(parents=True, exist_ok=True)
    card = data_card(dataset, study.data, prepared.parts, max(prepared.context.images))
    manifest = dataset.table.assign(split=prepared.parts).rename_axis("row").reset_index()
    names = np.array(dataset.classes, dtype=object)
    manifest["label"] = np.where(prepared.parts == "test", "", names[dataset.table["label"].to_numpy(np.int64)])
    test = pd.DataFrame({"row": prepared.test_rows, "label": dataset.table["label"].to_numpy()[prepared.test_rows]})
    # The manifest is for people and MLflow, so its texts may be quoted: the program finds an image by the number of its
    # row. The test labels, which the program reads back, are numbers only.
    atomic_write(folder.manifest, csv_text(manifest))
    atomic_write(folder.test_labels, test.to_csv(index=False))
    atomic_write(folder.data_card, json.dumps(card, indent=1, ensure_ascii=True))
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
    small = (chosen >> 8).astype(np.uint8) if chosen.dtype == np.uint16 else chosen
    with atomic_path(prepared.folder.thumbnails) as temporary:
        np.savez_compressed(temporary, images=small, labels=prepared.context.labels[rows])


def write_folder(prepared: Prepared) -> None:
    """Write all files that are known before the first trial."""
    write_data(prepared)
    write_study(prepared)


def write_study(prepared: Prepared) -> None:
    """Write the resolved study and its fingerprint to study.json."""
    document = {"name": prepared.name, "study": without_passwords(prepared.study), "fingerprint": prepared.fingerprint}
    atomic_write(prepared.folder.study_json, json.dumps(document, indent=1, ensure_ascii=True))


def update_stored_study(prepared: Prepared) -> None:
    """Update the keys of study.json that may change without training: description, report and addresses."""
    try:
        before = json.loads(prepared.folder.study_json.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # missing or damaged: write the study as the file in studies/ has it
        write_study(prepared)
        return
    now = without_passwords(prepared.study)
    updates = {name: now[name] for name in ("description", "report", "tracking_uri", "storage")}
    if any(before["study"].get(name) != value for name, value in updates.items()):
        before["study"].update(updates)
        atomic_write(prepared.folder.study_json, json.dumps(before, indent=1, ensure_ascii=True))
