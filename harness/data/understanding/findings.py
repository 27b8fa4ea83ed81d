"""Findings: what looking at all images together shows, before anything is trained. They are kept in the cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.atomic import atomic_write
from harness.config.data import DataConfig
from harness.data.dataset import Dataset
from harness.data.parallel import Progress
from harness.data.understanding import dark_images, give_aways, near_duplicates
from harness.data.understanding.give_aways import GiveAway
from harness.data.understanding.near_duplicates import NearPair
from harness.errors import DataError
from harness.safe_text import listed

_VERSION = 1  # of the stored file
_SHOWN = 3  # pairs that a warning names
_Computed = tuple[list[NearPair], list[GiveAway], list[str]]  # the last: warnings about ranges of values


@dataclass(frozen=True)
class Findings:
    """Near duplicates and give-aways of a data set, and the warnings about them and about how it was read."""

    near: list[NearPair]
    give_aways: list[GiveAway]
    warnings: tuple[str, ...]


def look_at(
    dataset: Dataset, array: Path, config: DataConfig, *, cache: Path, progress: Progress | None = None
) -> Findings:
    """Compare all images with each other and all classes with the facts about their files.

    Args:
        array: file of the data set's images, (N, S, S, channels), as `harness.data.dataset.arrays` returns it.
        cache: folder in which the result is kept for the next start.
        progress: called with (pairs of images done, pairs in all).

    Raises:
        DataError: with `dedupe: {near: error}`, near duplicates have two labels or are in two parts of the split.
    """
    key = [array.stem, _VERSION, near_duplicates.VERSION]  # the array's name stands for everything that makes it
    path = cache / "findings" / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}.json"
    stored = _stored(path)
    near, given, ranges = stored or _computed(dataset, np.load(array, mmap_mode="r"), config, progress)
    if stored is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, json.dumps([list(map(asdict, near)), list(map(asdict, given)), ranges]).encode())
    if config.dedupe.near == "error":
        _refuse(dataset, near)
    told = [one.sentence(len(dataset.classes)) for one in given]
    return Findings(near, given, (*dataset.warnings, *ranges, *_near_warnings(dataset, near, config), *told))


def _stored(path: Path) -> _Computed | None:
    with contextlib.suppress(OSError, ValueError, TypeError):
        pairs, given, ranges = json.loads(path.read_bytes())
        return [NearPair(**pair) for pair in pairs], [GiveAway(**one) for one in given], list(ranges)
    return None


def _computed(
    dataset: Dataset, images: NDArray[np.uint8] | NDArray[np.uint16], config: DataConfig, progress: Progress | None
) -> _Computed:
    table, scanned = dataset.table, dataset.scanned
    _, first = np.unique(table["pixels_sha256"].to_numpy(), return_index=True)  # exact copies are known already
    near = near_duplicates.near_duplicates(scanned.thumbnails, images, np.sort(first), progress)
    rows = give_aways.looked_at(len(table))
    looked = [scanned[row] for row in rows.tolist()]
    given = give_aways.give_aways(
        [image.facts for image in looked],
        [image.traits for image in looked],
        table["label"].to_numpy(np.int64)[rows],
        table["group"].iloc[rows].tolist(),
        dataset.classes,
    )
    return near, given, dark_images.warnings_of((image.facts for image in scanned), config.bit_depth)


def _near_warnings(dataset: Dataset, near: list[NearPair], config: DataConfig) -> list[str]:
    if not near:
        return []
    two_labels, two_parts = _in_two(dataset, near, "label"), _in_two(dataset, near, "fixed_split")
    grouped = config.dedupe.near == "group"
    warnings = [
        f"{len(near)} pairs of images show nearly the same ({_named(dataset, near)}); "
        + ("they are kept in one part of the split." if grouped else "the split may part them (data.dedupe.near).")
    ]
    if two_labels:
        warnings.append(
            f"{len(two_labels)} pairs of images that show nearly the same have two labels "
            f"({_named(dataset, two_labels)})."
        )
    if two_parts:
        warnings.append(
            f"{len(two_parts)} pairs of images that show nearly the same are in two parts of the given split "
            f"({_named(dataset, two_parts)}): scores are too good."
        )
    return warnings


def _refuse(dataset: Dataset, near: list[NearPair]) -> None:
    pairs = _in_two(dataset, near, "label") + _in_two(dataset, near, "fixed_split")
    if pairs:
        raise DataError(
            f"images that show nearly the same must have one label and one part of the split, but {len(pairs)} pairs "
            "have two; remove one of each pair, or set data.dedupe: {near: group} or keep:\n"
            + listed(_pair(dataset, pair) for pair in pairs)
        )


def _in_two(dataset: Dataset, near: list[NearPair], column: str) -> list[NearPair]:
    """Return the pairs whose images differ in this column; an image without a value differs from none."""
    values = dataset.table[column].tolist()
    return [p for p in near if values[p.first] != values[p.second] and "" not in (values[p.first], values[p.second])]


def _named(dataset: Dataset, pairs: list[NearPair]) -> str:
    shown = "; ".join(_pair(dataset, pair) for pair in pairs[:_SHOWN])
    return shown + ("; …" if len(pairs) > _SHOWN else "")


def _pair(dataset: Dataset, pair: NearPair) -> str:
    paths = dataset.table["path"]
    return f"{paths.iloc[pair.first]} and {paths.iloc[pair.second]}"
