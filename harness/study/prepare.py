"""Prepare a loaded study: images on disk, splits, the cache plan, and the study's fingerprint."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.config.auto_batch import fitted_batch_size, with_batch_size
from harness.config.auto_epochs import with_epochs
from harness.config.backbone_specs import runs_code
from harness.config.load import LoadedStudy, faults_of_phases
from harness.config.space import backbones, side_of, space
from harness.config.study import StudyConfig
from harness.config.study_names import check_letters
from harness.data.augmentation import image_keys
from harness.data.corruptions import check_shifts
from harness.data.dataset import Dataset
from harness.errors import ConfigError, DataError
from harness.model import weights
from harness.model.weight_files.report import LoadReport
from harness.results.event_types import StudyCreated
from harness.results.events import first_event
from harness.results.names import fraction_split, is_fraction_split
from harness.results.paths import StudyFolder, home
from harness.study.executors.base import WorkerContext
from harness.study.identity import fingerprint
from harness.study.open_data import OpenedData, Progress, check_source, open_data
from harness.training.frozen_features.cache_plan import Sizes, default_budget, make_plan
from harness.training.frozen_features.worker_cache import Plan
from harness.training.precision import resolve_precision


@dataclass(frozen=True)
class Prepared:
    """A study that is ready to run."""

    name: str
    study: StudyConfig
    folder: StudyFolder
    data: OpenedData
    context: WorkerContext
    fingerprint: dict[str, Any]
    chosen: tuple[str, ...] = ()  # sentences about what the study chose by itself: batch size, epochs, data sizes
    threads_here: int | None = None  # threads that this machine would give a worker, if the study keeps others
    weights: tuple[LoadReport, ...] = ()  # what is used of the weights, if there is something to say

    @property
    def dataset(self) -> Dataset:
        return self.data.dataset

    @property
    def parts(self) -> NDArray[np.str_]:
        """The search's split: "train", "validation", "test" or "unused" for each image."""
        return self.data.parts

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
    check_source(study, loaded.path.stem)
    cache = home() / "cache"
    opened = open_data(study, cache=cache, progress=progress)
    dataset, parts = opened.dataset, opened.parts
    check_shifts(study.shifts, dataset.channels)
    name = loaded.name
    if loaded.data_replaced:
        name = f"{loaded.name}-{dataset.digest[:8]}"
        check_letters(name, "the study's name with the data's digest")
    folder = StudyFolder(name)
    folder.check_inside()
    train = int((parts == "train").sum())
    least = min(len(rows) for name, (rows, _) in opened.splits.items() if not is_fraction_split(name))
    study, batch_reason = with_batch_size(study, least)
    _check_batch_sizes(study, least)
    study, sizes_reason = _with_data_sizes(study, opened)
    study, epochs_reason = with_epochs(study, train)
    if faults := faults_of_phases(study):
        raise ConfigError("with this number of training images, epochs: auto does not fit the schedules:", faults)
    labels = dataset.table["label"].to_numpy(np.int64).copy()
    labels[parts == "test"] = -1
    threads, threads_here = threads_for(study, len(devices), folder)
    sizes_of_parts = Sizes(train, int((parts == "validation").sum()))
    context = WorkerContext(
        images=opened.arrays,
        image_size=None if study.data.image_size == "native" else int(study.data.image_size),
        labels=labels,
        keys=image_keys(list(dataset.table["sha256"])),
        splits=opened.splits,
        classes=tuple(dataset.classes),
        objective=study.objective,
        weights=study.weights,
        threads=threads,
        checkpoints=folder.checkpoints,
        resize_by_weights=study.data.resize == "weights",
        plan=plan_cache(study, sizes_of_parts, cache / "prefix", dataset.channels),
        precision=resolve_precision(study.precision, devices[0]),
        precision_notes=cache / "precision.json",
        own_code=tuple(backbone for backbone in backbones(study) if runs_code(backbone)),
    )
    identity = fingerprint(study, dataset, context, devices[0], opened.value_range)
    here = None if threads == threads_here else threads_here
    chosen = tuple(reason for reason in (batch_reason, sizes_reason, epochs_reason) if reason is not None)
    return Prepared(name, study, folder, opened, context, identity, chosen, here, reports)


def plan_cache(study: StudyConfig, sizes: Sizes, folder: Path, channels: int = 3) -> Plan:
    """Plan which activations are kept, within `cache_gb` or within the free memory and disk space."""
    folder.mkdir(parents=True, exist_ok=True)
    budget = default_budget(folder) if study.cache_gb is None else int(study.cache_gb * 1e9)
    return make_plan(study, sizes, folder, budget, channels)


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


def _check_batch_sizes(study: StudyConfig, train: int) -> None:
    """Check that the largest batch fits into the smallest training part of all splits."""
    largest = max(max(space(study, strategy).ranges["batch_size"].ends()) for strategy in study.strategies)
    if largest > train:
        raise DataError(
            f"batch_size must not exceed the training part, but got {largest} for {train} training images; "
            f"take batch_size: {train} or less (without the key, it would be {fitted_batch_size(train)}), or more "
            "images."
        )


def _with_data_sizes(study: StudyConfig, opened: OpenedData) -> tuple[StudyConfig, str | None]:
    """Return the study without the fractions of `data_sizes` that hold no batch, and a sentence that names them."""
    largest = max(max(space(study, strategy).ranges["batch_size"].ends()) for strategy in study.strategies)
    small = [
        fraction
        for fraction in study.data_sizes
        if fraction < 1
        and any(
            len(opened.splits[fraction_split(index, fraction)][0]) < largest
            for index in range(study.confirmation.seeds)
        )
    ]
    if not small:
        return study, None
    kept = tuple(fraction for fraction in study.data_sizes if fraction not in small)
    named = " and ".join(f"{fraction:g}" for fraction in small)
    return study.model_copy(update={"data_sizes": kept}), (
        f"Data sizes: {named} of the training images hold no batch of {largest} and are left out."
    )
