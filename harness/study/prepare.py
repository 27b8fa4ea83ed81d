"""From a loaded study to what trials need: images on disk, splits, a study folder, and its identity."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.config.load import LoadedStudy
from harness.config.secrets import masked
from harness.config.sheets import backbone_spec
from harness.config.space import space
from harness.config.study import StudyConfig
from harness.data import split as splitting
from harness.data.card import data_card
from harness.data.dataset import Dataset, arrays, open_dataset
from harness.data.views import image_keys
from harness.errors import ConfigError, DataError
from harness.files import whole, write_whole
from harness.model import weights
from harness.report.files import csv_text
from harness.results.home import StudyFolder, home
from harness.study.executors.base import WorkerContext
from harness.study.plan import Sizes, default_budget, make_plan
from harness.study.splits import SEARCH_SPLIT, confirmation_split, fraction_split
from harness.training.precision import resolved
from harness.training.seeds import derive
from harness.training.sharing import Plan
from harness.training.trial import weights_of

# What may change on an existing study: none of it can change a number that was written.
FREE_TO_CHANGE = (
    "description", "report", "tracking_uri", "storage", "trials", "time", "workers", "executor", "cache_gb",
    "controlled", "data_sizes", "shifts",
)  # fmt: skip
Progress = Callable[[str, int, int], None]  # what, done, of


@dataclass(frozen=True)
class Prepared:
    """A study that is ready to run."""

    name: str
    study: StudyConfig
    folder: StudyFolder
    dataset: Dataset
    parts: NDArray[np.str_]  # "train", "validation", "test" or "unused" for each image, for the search
    context: WorkerContext
    fingerprint: dict[str, Any]

    @property
    def test_rows(self) -> NDArray[np.int64]:
        """Rows of the test part, the same in every split."""
        return np.flatnonzero(self.parts == "test").astype(np.int64)


def backbones(study: StudyConfig) -> list[str]:
    """Every backbone the study may build, in the file's order."""
    names: dict[str, None] = {}
    for strategy in study.strategies:
        names.update(dict.fromkeys(space(study, strategy).ranges["backbone"].values()))
    return list(names)


def sides(study: StudyConfig) -> list[int]:
    """Pixels a side of every array of images that the study trains on."""
    size = study.data.image_size
    return sorted({backbone_spec(b).native_size for b in backbones(study)}) if size == "native" else [int(size)]


def threads_for(study: StudyConfig, workers: int) -> int:
    """CPU threads of each worker: the file's word, or all cores shared evenly."""
    return study.threads or max(_cores() // workers, 1)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare(loaded: LoadedStudy, devices: list[str], progress: Progress) -> Prepared:
    """Scan, decode, split and describe the data; check that the weights are there.

    Raises:
        ConfigError, DataError, ResourceError: before anything of the study is written.
    """
    study = loaded.study
    check_weights(study)
    _check_source(loaded)
    cache = home() / "cache"
    dataset = open_dataset(study.data, cache=cache, progress=lambda i, n: progress("Reading images", i, n))
    name = f"{loaded.name}-{dataset.digest[:8]}" if loaded.data_replaced else loaded.name
    folder = StudyFolder(name)
    parts = first_split(dataset, study)
    _check_batch_sizes(study, int((parts == "train").sum()))
    files = {
        side: arrays(dataset, study.data, side, cache=cache, progress=lambda i, n: progress("Decoding images", i, n))
        for side in sides(study)
    }
    labels = dataset.table["label"].to_numpy(np.int64).copy()
    labels[parts == "test"] = -1
    sizes_of_parts = Sizes(int((parts == "train").sum()), int((parts == "validation").sum()))
    context = WorkerContext(
        images=files,
        image_size=None if study.data.image_size == "native" else int(study.data.image_size),
        labels=labels,
        keys=image_keys(list(dataset.table["sha256"])),
        splits=_splits(dataset, study, parts),
        classes=tuple(dataset.classes),
        objective=study.objective,
        weights=study.weights,
        threads=threads_for(study, len(devices)),
        checkpoints=folder.checkpoints,
        plan=sharing_plan(study, sizes_of_parts, cache / "prefix"),
        precision=resolved(study.precision, devices[0]),
        precision_notes=cache / "precision.json",
    )
    return Prepared(name, study, folder, dataset, parts, context, fingerprint(study, dataset, context, devices[0]))


def sharing_plan(study: StudyConfig, sizes: Sizes, folder: Path) -> Plan:
    """Which activations are kept: within `cache_gb`, or what memory and disk leave."""
    folder.mkdir(parents=True, exist_ok=True)
    budget = default_budget(folder) if study.cache_gb is None else int(study.cache_gb * 1e9)
    return make_plan(study, sizes, folder, budget)


def first_split(dataset: Dataset, study: StudyConfig) -> NDArray[np.str_]:
    """The split of the search: the user's where the data name one, else a draw; then the limit."""
    return _limited(dataset, study, _drawn(dataset, study), derive(study.data.split.seed, "limit"))


def _drawn(dataset: Dataset, study: StudyConfig) -> NDArray[np.str_]:
    split = study.data.split
    return splitting.draw(dataset.table, split, seed=split.seed, dedupe=study.data.dedupe, classes=dataset.classes)


def _limited(dataset: Dataset, study: StudyConfig, parts: NDArray[np.str_], seed: int) -> NDArray[np.str_]:
    if study.data.limit is None:
        return parts
    return splitting.limit(dataset.table, parts, study.data.limit, seed=seed, classes=dataset.classes)


def _splits(
    dataset: Dataset, study: StudyConfig, parts: NDArray[np.str_]
) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The search's rows, and a new draw of the non-test part for each confirmation seed."""
    made = {SEARCH_SPLIT: _rows(parts)}
    whole = _drawn(dataset, study)
    for index in range(study.confirmation.seeds):
        seed = derive(study.seed, "confirmation", index, "split")
        again = splitting.redraw(dataset.table, whole, study.data.split, seed=seed, classes=dataset.classes)
        train, validation = _rows(_limited(dataset, study, again, derive(seed, "limit")))
        made[confirmation_split(index)] = train, validation
        labels = dataset.table["label"].to_numpy(np.int64)[train]
        for fraction in study.data_sizes:
            if fraction < 1:
                kept = train[splitting.nested(labels, fraction, seed=derive(seed, "data_sizes"))]
                made[fraction_split(index, fraction)] = kept, validation
    return made


def _rows(parts: NDArray[np.str_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.flatnonzero(parts == "train").astype(np.int64), np.flatnonzero(parts == "validation").astype(np.int64)


def check_weights(study: StudyConfig) -> None:
    """Every backbone's weights can be loaded here; all that cannot are named together."""
    if all(weights_of(strategy, study.weights) == "none" for strategy in study.strategies):
        return
    faults = []
    for backbone in backbones(study):
        try:
            weights.available(study.weights, backbone)
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError("the weights do not fit the study:", faults)


def _check_source(loaded: LoadedStudy) -> None:
    if loaded.study.data.source is None:
        wanted = loaded.study.data.wanted or "a folder with one folder of images for each class"
        raise DataError(
            f"the study {loaded.name} needs its images: {' '.join(wanted.split())} "
            f"Point at them with: make study NAME={loaded.path.stem} DATA=path/to/images"
        )


def _check_batch_sizes(study: StudyConfig, train: int) -> None:
    """The largest batch fits into the training part, and into the smallest fraction of it that is asked for."""
    largest = max(max(space(study, strategy).ranges["batch_size"].ends()) for strategy in study.strategies)
    if largest > train:
        raise DataError(
            f"batch_size must not exceed the training part, but got {largest} for {train} training images; "
            "take a smaller batch_size, or more images."
        )
    least = min(study.data_sizes, default=1.0)
    if largest > least * train:
        raise DataError(
            f"every fraction of data_sizes must hold a batch, but {least:g} of {train} training images is less than "
            f"batch_size {largest}; leave that fraction out, or take a smaller batch_size."
        )


def fingerprint(study: StudyConfig, dataset: Dataset, context: WorkerContext, device: str) -> dict[str, Any]:
    """Everything that can change a number: two runs with equal fingerprints are one study."""
    values = study.model_dump(mode="json", by_alias=True, exclude=set(FREE_TO_CHANGE))
    values["data"].pop("source")  # the digest speaks for the bytes, wherever they lie
    values["data"].pop("wanted")
    values["data"].pop("name")
    values["confirmation"].pop("seeds")
    values.pop("threads")
    values["precision"] = context.precision
    values.pop("weights")
    return values | {
        "data digest": dataset.digest,
        "weights": {backbone: weights.fingerprint(study.weights, backbone) for backbone in backbones(study)},
        "threads": context.threads,
        "device": device.partition(":")[0],
    }


def differences(before: Any, now: Any, where: str = "") -> list[str]:
    """Two fingerprints, field by field: `search.head_lr: was …, is …`."""
    if isinstance(before, dict) and isinstance(now, dict):
        lines = []
        for key in [*before, *(k for k in now if k not in before)]:
            lines += differences(before.get(key), now.get(key), f"{where}.{key}" if where else str(key))
        return lines
    return [] if before == now else [f"{where}: was {json.dumps(before)}, is {json.dumps(now)}"]


def write_folder(prepared: Prepared) -> None:
    """Write what is known before trial one."""
    write_data(prepared)
    write_study(prepared)


def write_data(prepared: Prepared) -> None:
    """Write what tells of the images: manifest, test labels, data card, thumbnails."""
    folder, dataset, study = prepared.folder, prepared.dataset, prepared.study
    folder.path.mkdir(parents=True, exist_ok=True)
    card = data_card(dataset, study.data, prepared.parts, max(prepared.context.images))
    manifest = dataset.table.assign(split=prepared.parts).rename_axis("row").reset_index()
    names = np.array(dataset.classes, dtype=object)
    manifest["label"] = np.where(prepared.parts == "test", "", names[dataset.table["label"].to_numpy(np.int64)])
    test = pd.DataFrame({"row": prepared.test_rows, "label": dataset.table["label"].to_numpy()[prepared.test_rows]})
    # The manifest is for people and MLflow, and may stand quoted: the program finds an image by its row's number. The
    # test labels, which it reads back, are numbers alone.
    write_whole(folder.manifest, csv_text(manifest))
    write_whole(folder.test_labels, test.to_csv(index=False))
    write_whole(folder.data_card, json.dumps(card, indent=1, ensure_ascii=True))
    write_thumbnails(prepared)


def stored(study: StudyConfig) -> dict[str, Any]:
    """The study as it is written to disk, log and MLflow: all but the passwords in its addresses.

    Who needs an address again asks `tracking.store.address_of` or `sync.storage_of`, which find the password or say
    where to give it.
    """
    values = study.model_dump(mode="json", by_alias=True)
    addresses = {"tracking_uri": study.tracking_uri, "storage": study.storage}
    return values | {name: masked(address) if address else None for name, address in addresses.items()}


def write_study(prepared: Prepared) -> None:
    """Write the resolved study; again where a field that may change has changed."""
    document = {
        "name": prepared.name,
        "study": stored(prepared.study),
        "fingerprint": prepared.fingerprint,
    }
    write_whole(prepared.folder.study_json, json.dumps(document, indent=1, ensure_ascii=True))


def update_shown(prepared: Prepared) -> None:
    """Take over what may change on a finished study without training: description, report and addresses."""
    try:
        before = json.loads(prepared.folder.study_json.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # lost or damaged: it says what the file in studies/ says
        write_study(prepared)
        return
    now = stored(prepared.study)
    shown = {name: now[name] for name in ("description", "report", "tracking_uri", "storage")}
    if any(before["study"].get(name) != value for name, value in shown.items()):
        before["study"].update(shown)
        write_whole(prepared.folder.study_json, json.dumps(before, indent=1, ensure_ascii=True))


def write_thumbnails(prepared: Prepared, per_class: int = 6) -> None:
    """A few training images of each class, for the data card of the page."""
    size = min(prepared.context.images)
    images = np.load(prepared.context.images[size], mmap_mode="r")
    train, _ = prepared.context.splits[SEARCH_SPLIT]
    labels = prepared.context.labels[train]
    rng = np.random.default_rng(prepared.study.seed)
    rows = np.concatenate(
        [rng.permutation(train[labels == label])[:per_class] for label in range(len(prepared.context.classes))]
    ).astype(np.int64)
    picked = np.ascontiguousarray(images[rows])
    small = (picked >> 8).astype(np.uint8) if picked.dtype == np.uint16 else picked
    with whole(prepared.folder.thumbnails) as temporary:
        np.savez_compressed(temporary, images=small, labels=prepared.context.labels[rows])
