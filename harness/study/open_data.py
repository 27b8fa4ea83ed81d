"""Open a study's data: the images, what is worth knowing about them, their arrays and their split.

A study does this before its first trial, and `harness data` does nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.config.fit import Fit
from harness.config.space import fits
from harness.config.study import StudyConfig
from harness.data import split as splitting
from harness.data.dataset import Dataset, arrays, open_dataset
from harness.data.sources.listing import told
from harness.data.understanding.findings import Findings, look_at
from harness.data.understanding.near_duplicates import clusters
from harness.errors import DataError
from harness.results.names import SEARCH_SPLIT, confirmation_split, fraction_split
from harness.seeds import derive

Progress = Callable[[str, int, int], None]  # called with a description, how many are done, and of how many
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class OpenedData:
    """The data of a study, ready for training."""

    dataset: Dataset
    findings: Findings
    parts: NDArray[np.str_]  # the search's split: "train", "validation", "test" or "unused" for each image
    arrays: dict[Fit, Path]
    splits: dict[str, tuple[Rows, Rows]]  # training and validation rows of the search and of each confirmation seed
    value_range: tuple[float, float] | None  # sample values that are black and white, with `bit_depth: used`


def open_data(study: StudyConfig, *, cache: Path, progress: Progress) -> OpenedData:
    """Scan, decode and split the images of a study.

    Raises:
        ConfigError, DataError, ResourceError: the data cannot be used; nothing was written outside the cache.
    """
    dataset = open_dataset(
        study.data, cache=cache, sizes=fits(study), progress=lambda i, n: progress("Reading images", i, n)
    )
    value_range = None
    if study.data.bit_depth == "used":
        with told(dataset.reading):
            value_range = dataset.value_range(first_split(dataset, study) == "train")
    files = _arrays(dataset, study, value_range, cache, progress)
    findings = look_at(
        dataset, files[min(files)], study.data, cache=cache, progress=lambda i, n: progress("Comparing images", i, n)
    )
    if findings.near and study.data.dedupe.near == "group":
        dataset = dataset.with_clusters(clusters(findings.near, len(dataset.table)))
    with told(dataset.reading):
        parts = first_split(dataset, study)
        splits = _splits(dataset, study, parts)
        again = dataset.value_range(parts == "train") if value_range is not None else None
    if again != value_range:
        value_range = again  # near duplicates have moved images into or out of the training part
        files = _arrays(dataset, study, value_range, cache, progress)
    return OpenedData(dataset, findings, parts, files, splits, value_range)


def _arrays(
    dataset: Dataset, study: StudyConfig, value_range: tuple[float, float] | None, cache: Path, progress: Progress
) -> dict[Fit, Path]:
    def told_progress(done: int, of: int) -> None:
        progress("Decoding images", done, of)

    return {
        fit: arrays(dataset, study.data, fit, cache=cache, value_range=value_range, progress=told_progress)
        for fit in fits(study)
    }


def check_source(study: StudyConfig, name: str) -> None:
    """Check that the study names its images; raise DataError, with what it wants, if it does not.

    Args:
        name: of the study's file.
    """
    if study.data.source is None:
        wanted = study.data.wanted or "a folder with one folder of images for each class"
        raise DataError(
            f"the study {name} needs its images: {' '.join(wanted.split())} "
            f"Point at them with: make study NAME={name} DATA=path/to/images"
        )


def first_split(dataset: Dataset, study: StudyConfig) -> NDArray[np.str_]:
    """Return the split of the search: the data's own split, otherwise a drawn one; then apply `limit`."""
    return _limited(dataset, study, _drawn(dataset, study), derive(study.data.split.seed, "limit"))


def _drawn(dataset: Dataset, study: StudyConfig) -> NDArray[np.str_]:
    split, exact = study.data.split, study.data.dedupe.exact
    return splitting.draw(dataset.table, split, seed=split.seed, dedupe=exact, classes=dataset.classes)


def _limited(dataset: Dataset, study: StudyConfig, parts: NDArray[np.str_], seed: int) -> NDArray[np.str_]:
    if study.data.limit is None:
        return parts
    return splitting.limit(dataset.table, parts, study.data.limit, seed=seed, classes=dataset.classes)


def _splits(dataset: Dataset, study: StudyConfig, parts: NDArray[np.str_]) -> dict[str, tuple[Rows, Rows]]:
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


def _rows(parts: NDArray[np.str_]) -> tuple[Rows, Rows]:
    return np.flatnonzero(parts == "train").astype(np.int64), np.flatnonzero(parts == "validation").astype(np.int64)
