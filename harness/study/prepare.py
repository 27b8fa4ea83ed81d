"""Prepare a loaded study: images on disk, splits, the cache plan, and the study's fingerprint."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.config.auto_epochs import with_epochs
from harness.config.load import LoadedStudy, faults_of_phases
from harness.config.space import backbones, fits, side_of, space
from harness.config.study import StudyConfig
from harness.config.study_names import check_letters
from harness.data import split as splitting
from harness.data.augmentation import image_keys
from harness.data.dataset import Dataset, arrays, open_dataset
from harness.errors import ConfigError, DataError
from harness.model import weights
from harness.model.weight_files.report import LoadReport
from harness.results.event_types import StudyCreated
from harness.results.events import first_event
from harness.results.names import SEARCH_SPLIT, confirmation_split, fraction_split
from harness.results.paths import StudyFolder, home
from harness.seeds import derive
from harness.study.executors.base import WorkerContext
from harness.study.identity import fingerprint
from harness.training.frozen_features.cache_plan import Sizes, default_budget, make_plan
from harness.training.frozen_features.worker_cache import Plan
from harness.training.precision import resolve_precision

Progress = Callable[[str, int, int], None]  # called with a description, how many are done, and of how many


@dataclass(frozen=True)
class Prepared:
    """A study that is ready to run."""

    name: str
    study: StudyConfig
    folder: StudyFolder
    dataset: Dataset
    parts: NDArray[np.str_]  # the search's split: "train", "validation", "test" or "unused" for each image
    context: WorkerContext
    fingerprint: dict[str, Any]
    epochs_reason: str | None = None  # how `epochs: auto` was resolved; None if the file gives a number
    threads_here: int | None = None  # threads that this machine would give a worker, if the study keeps others
    weights: tuple[LoadReport, ...] = ()  # what is used of the weights, if there is something to say

    @property
    def test_rows(self) -> NDArray[np.int64]:
        """Rows of the test part, the same in every split."""
        return np.flatnonzero(self.parts == "test").astype(np.int64)


def threads_for(study: StudyConfig, workers: int, folder: StudyFolder) -> tuple[int, int]:
    """Return the CPU threads of each worker, and how many this machine would give it.

    Without the key `threads`, all cores are shared evenly when the study is started. From then on it keeps this number,
    with any number of workers and on any machine, because sums depend on it, and so the study's numbers do.
    """
    here = study.threads or max(_cores() // workers, 1)
    created = first_event(folder.events) if study.threads is None else None
    stored = created.data.fingerprint.get("threads") if created and isinstance(created.data, StudyCreated) else None
    return (stored if isinstance(stored, int) and stored > 0 else here), here


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare(loaded: LoadedStudy, devices: list[str], progress: Progress) -> Prepared:
    """Scan, decode and split the images, plan the cache, and check that the weights are available.

    Raises:
        ConfigError, DataError, ResourceError: the study cannot run; nothing was written to its folder.
    """
    study = loaded.study
    reports = check_weights(study)
    _check_source(loaded)
    cache = home() / "cache"
    dataset = open_dataset(study.data, cache=cache, progress=lambda i, n: progress("Reading images", i, n))
    name = loaded.name
    if loaded.data_replaced:
        name = f"{loaded.name}-{dataset.digest[:8]}"
        check_letters(name, "the study's name with the data's digest")
    folder = StudyFolder(name)
    folder.check_inside()
    parts = first_split(dataset, study)
    train = int((parts == "train").sum())
    _check_batch_sizes(study, train)
    study, epochs_reason = with_epochs(study, train)
    if faults := faults_of_phases(study):
        raise ConfigError("with this number of training images, epochs: auto does not fit the schedules:", faults)
    files = {
        one: arrays(dataset, study.data, one, cache=cache, progress=lambda i, n: progress("Decoding images", i, n))
        for one in fits(study)
    }
    labels = dataset.table["label"].to_numpy(np.int64).copy()
    labels[parts == "test"] = -1
    threads, threads_here = threads_for(study, len(devices), folder)
    sizes_of_parts = Sizes(train, int((parts == "validation").sum()))
    context = WorkerContext(
        images=files,
        image_size=None if study.data.image_size == "native" else int(study.data.image_size),
        labels=labels,
        keys=image_keys(list(dataset.table["sha256"])),
        splits=_splits(dataset, study, parts),
        classes=tuple(dataset.classes),
        objective=study.objective,
        weights=study.weights,
        threads=threads,
        checkpoints=folder.checkpoints,
        resize_by_weights=study.data.resize == "weights",
        plan=plan_cache(study, sizes_of_parts, cache / "prefix"),
        precision=resolve_precision(study.precision, devices[0]),
        precision_notes=cache / "precision.json",
    )
    identity = fingerprint(study, dataset, context, devices[0])
    here = None if threads == threads_here else threads_here
    return Prepared(name, study, folder, dataset, parts, context, identity, epochs_reason, here, reports)


def plan_cache(study: StudyConfig, sizes: Sizes, folder: Path) -> Plan:
    """Plan which activations are kept, within `cache_gb` or within the free memory and disk space."""
    folder.mkdir(parents=True, exist_ok=True)
    budget = default_budget(folder) if study.cache_gb is None else int(study.cache_gb * 1e9)
    return make_plan(study, sizes, folder, budget)


def first_split(dataset: Dataset, study: StudyConfig) -> NDArray[np.str_]:
    """Return the split of the search: the data's own split, otherwise a drawn one; then apply `limit`."""
    return _limited(dataset, study, _drawn(dataset, study), derive(study.data.split.seed, "limit"))


def _drawn(dataset: Dataset, study: StudyConfig) -> NDArray[np.str_]:
    split = study.data.split
    return splitting.draw(
        dataset.table, split, seed=split.seed, dedupe=study.data.dedupe.exact, classes=dataset.classes
    )


def _limited(dataset: Dataset, study: StudyConfig, parts: NDArray[np.str_], seed: int) -> NDArray[np.str_]:
    if study.data.limit is None:
        return parts
    return splitting.limit(dataset.table, parts, study.data.limit, seed=seed, classes=dataset.classes)


def _splits(
    dataset: Dataset, study: StudyConfig, parts: NDArray[np.str_]
) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return the rows of the search's split and of each confirmation seed, which redraws the non-test part."""
    splits = {SEARCH_SPLIT: _rows(parts)}
    unlimited = _drawn(dataset, study)
    for index in range(study.confirmation.seeds):
        seed = derive(study.seed, "confirmation", index, "split")
        again = splitting.redraw(dataset.table, unlimited, study.data.split, seed=seed, classes=dataset.classes)
        train, validation = _rows(_limited(dataset, study, again, derive(seed, "limit")))
        splits[confirmation_split(index)] = train, validation
        labels = dataset.table["label"].to_numpy(np.int64)[train]
        for fraction in study.data_sizes:
            if fraction < 1:
                kept = train[splitting.nested(labels, fraction, seed=derive(seed, "data_sizes"))]
                splits[fraction_split(index, fraction)] = kept, validation
    return splits


def _rows(parts: NDArray[np.str_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.flatnonzero(parts == "train").astype(np.int64), np.flatnonzero(parts == "validation").astype(np.int64)


def check_weights(study: StudyConfig) -> tuple[LoadReport, ...]:
    """Check that every backbone's weights can be loaded, and return what is used of them, if there is something to say.

    Raises:
        ConfigError: names all weights that cannot be loaded.
        ResourceError: official weights are neither cached nor reachable.
    """
    if set(study.strategies) == {"from_scratch"}:
        return ()
    faults, reports = [], []
    for entry in study.weights.entries:
        for backbone in backbones(study):
            try:
                reports.append(weights.available(entry, backbone, side_of(study, backbone, entry)))
            except ConfigError as error:
                faults.append(str(error))
    if faults:
        raise ConfigError("the weights do not fit the study:", faults)
    return tuple(report for report in reports if report is not None)


def _check_source(loaded: LoadedStudy) -> None:
    if loaded.study.data.source is None:
        wanted = loaded.study.data.wanted or "a folder with one folder of images for each class"
        raise DataError(
            f"the study {loaded.name} needs its images: {' '.join(wanted.split())} "
            f"Point at them with: make study NAME={loaded.path.stem} DATA=path/to/images"
        )


def _check_batch_sizes(study: StudyConfig, train: int) -> None:
    """Check that the largest batch fits into the training part, and into the smallest of `data_sizes`."""
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
