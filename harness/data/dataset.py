"""Dataset: the table of all images of a source, and arrays of the decoded images at one size."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock
from numpy.typing import NDArray

from harness.atomic import disk_errors
from harness.config.data import MAX_CHANNELS, DataConfig
from harness.config.fit import Fit
from harness.data.array_file import is_sound
from harness.data.decoding.rules import rules_of
from harness.data.groups import groups_of
from harness.data.make_array import make_array
from harness.data.memory import Images
from harness.data.parallel import Progress
from harness.data.scan import Scan, copies, scan
from harness.data.sources.listing import told
from harness.data.staging import Staging
from harness.errors import DataError
from harness.safe_text import listed

COLUMNS = ("path", "label", "group", "fixed_split", "sha256", "pixels_sha256", "width", "height", "kind")
_PART = 4096  # rows of the table that are held as Python objects at a time
_VERSION = 1  # of the arrays: raise it if the same images give other values


@dataclass(frozen=True)
class Dataset:
    """A scanned data set. Row i of `table` is image i of every array.

    Columns of the table: path (relative to the root, with /), label (index into `classes`), group ("" if the image has
    none), fixed_split ("", train, validation or test), sha256 (of the file), pixels_sha256, width, height (pixels),
    kind. Names are in NFC and contain no control characters.
    """

    name: str  # short, and never a path, because reports show it
    rendered: bool
    classes: tuple[str, ...]
    table: pd.DataFrame
    digest: str  # SHA-256 (hex) of names, labels, groups, fixed parts and bytes; independent of the folder's place
    card: dict[str, Any]  # the scan's part of the data card; see harness.data.card
    channels: int  # of every image: 3 unless `data.channels` is all
    _scan: Scan = field(repr=False)

    @property
    def scanned(self) -> Images:
        """What the scan found out about each image, in the order of the table."""
        return self._scan.images

    @property
    def reading(self) -> tuple[str, ...]:
        """Sentences on what was assumed to read the source, which belong to every refusal of it."""
        return self._scan.listing.reading

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about the source that a user should read before training."""
        return self._scan.listing.warnings

    def value_range(self, rows: NDArray[np.bool_]) -> tuple[float, float] | None:
        """Return the smallest and the largest sample value that these images use, before scaling and without alpha.

        Images of up to 8 bits do not count, because no rule scales them. None: there are no others.

        Args:
            rows: (N,) whether to count an image.

        Raises:
            DataError: there are others, but none among these rows.
        """
        found = zip(self.scanned, rows.tolist(), strict=True)
        deep = [(image.facts.low, image.facts.high, counted) for image, counted in found if image.facts.deep]
        used = [(low, high) for low, high, counted in deep if counted]
        if deep and not used:
            raise DataError(
                f"bit_depth: used needs the range of the training images, but all {len(deep)} images with more than "
                "8 bits are in other parts: give data.bit_depth as a number of bits."
            )
        return (min(low for low, _ in used), max(high for _, high in used)) if used else None

    def with_clusters(self, clusters: NDArray[np.int64]) -> Dataset:
        """Return the data set with the column `near`: (N,) numbers that near duplicates have in common."""
        return replace(self, table=self.table.assign(near=clusters))


def open_dataset(
    config: DataConfig, *, cache: Path, sizes: Sequence[int | Fit] = (), progress: Progress | None = None
) -> Dataset:
    """Scan the source and build its table.

    Args:
        cache: folder for downloads, scans and arrays.
        sizes: pixels a side, or the Fit, of the arrays that will be asked for; images are resized for them while they
            are scanned.
        progress: called with (images done, images in all).

    Raises:
        ConfigError, DataError, ResourceError: as `harness.data.scan.scan`; also if the group rule does not match every
            file name, or if the images have different numbers of channels.
    """
    cache.mkdir(parents=True, exist_ok=True)
    found = scan(config, cache=cache, sizes=[Fit.of(size) for size in sizes], progress=progress)
    listing, channels = found.listing, _channels(found, config)
    with told(listing.reading):
        groups, group_rule = groups_of(listing, found.rows, config.split.group)
    classes = listing.classes
    label_of = {name: index for index, name in enumerate(classes)}
    table, counts = _table(found, groups, label_of)
    return Dataset(
        name=listing.name,
        rendered=listing.rendered,
        classes=classes,
        table=table,
        digest=digest_of(table, classes),
        card=_scan_card(found, counts, group_rule),
        channels=channels,
        _scan=found,
    )


@dataclass
class _Counts:
    """How many images have each size (width, height in pixels), kind and conversion."""

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    converted: Counter[str] = field(default_factory=Counter)


def _table(found: Scan, groups: Sequence[str], label_of: dict[str, int]) -> tuple[pd.DataFrame, _Counts]:
    """Return the table, and counts for the data card.

    The table is built in parts, because a text in a list takes several times the memory of a text in a table.
    """
    counts, parts = _Counts(), []
    for start in range(0, max(len(found.rows), 1), _PART):
        columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
        for position in range(start, min(start + _PART, len(found.rows))):
            sample, image = found.listing.samples[found.rows[position]], found.images[position]
            facts = image.facts
            counts.sizes[facts.width, facts.height] += 1
            counts.kinds[facts.kind] += 1
            counts.converted.update(facts.converted)
            row = (
                *(sample.path, label_of[sample.label], groups[position], sample.fixed_split),
                *(image.sha256, image.pixels_sha256, facts.width, facts.height, facts.kind),
            )
            for name, value in zip(COLUMNS, row, strict=True):
                columns[name].append(value)
        parts.append(pd.DataFrame(columns).astype(dict.fromkeys(("label", "width", "height"), np.int64)))
    return pd.concat(parts, ignore_index=True), counts


def arrays(
    dataset: Dataset,
    config: DataConfig,
    size: int | Fit,
    *,
    cache: Path,
    value_range: tuple[float, float] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Return the path of a read-only .npy file (N, size, size, C) with all images; make the file if necessary.

    The type is uint8, or uint16 with full scale 65535 if any image has more than 8 bits. The file's name is a digest
    of everything that determines its content. An existing file is used only if the checksums of a sample of its rows
    fit; `harness doctor` checks all rows.

    Args:
        size: pixels a side; with `resize: weights`, the Fit of the weights.
        cache: folder of the arrays.
        value_range: sample values that become 0 and full scale, with `bit_depth: used`.
        progress: called with (images done, images in all).

    Raises:
        DataError: an image changed since the scan.
        ResourceError: there is not enough space on the disk.
    """
    size = Fit.of(size)
    deep = dataset._scan.images.deep
    dtype = np.dtype(np.uint16 if deep else np.uint8)
    shape = (len(dataset.table), size.side, size.side, dataset.channels)
    path = array_path(dataset.digest, config, size, value_range, cache=cache)
    staging = Staging(
        dataset._scan.listing, config, size, channels=dataset.channels, value_range=value_range, cache=cache
    )
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if is_sound(path, shape, dtype):
                staging.discard_if_free()
                return path
            with staging.held(wait=True):
                make_array(path, staging, dataset._scan, config, dtype, progress)
                staging.discard()
    return path


def array_path(
    digest: str, config: DataConfig, size: Fit, value_range: tuple[float, float] | None = None, *, cache: Path
) -> Path:
    """Return the path of a data set's array; its name is a digest of everything that determines its content."""
    shape = [size.side, size.shorter, size.interpolation] if size.by_weights else size.side
    rule = [digest, shape, config.resize, rules_of(config, value_range).cache_key(), _VERSION]
    return cache / "images" / f"{hashlib.sha256(json.dumps(rule).encode()).hexdigest()[:32]}.npy"


def _channels(found: Scan, config: DataConfig) -> int:
    """Return the number of channels of the pixels, which must be the same in every image."""
    if config.channels != "all":
        return 3  # whatever the files have
    examples: dict[int, list[str]] = defaultdict(list)
    for row, image in zip(found.rows, found.images, strict=True):
        examples[image.facts.channels].append(found.listing.samples[row].path)
    if len(examples) > 1:
        way = (
            "leave data.channels out, so that grey images are read as RGB"
            if set(examples) == {1, 3}
            else "choose the same three channels of each image by data.channels, or remove the others"
        )
        raise DataError(
            f"with data.channels: all, every image must have the same number of channels, but there are "
            f"{len(examples)} numbers; {way}:\n"
            + listed(
                f"{len(paths):,} image{'s' if len(paths) > 1 else ''} of {number} channel{'s' if number > 1 else ''}, "
                f"such as {paths[0]}"
                for number, paths in sorted(examples.items())
            )
        )
    channels = next(iter(examples), 3)
    if channels > MAX_CHANNELS:
        raise DataError(
            f"images must have at most {MAX_CHANNELS} channels, but these have {channels}; take some of them by "
            "data.channels."
        )
    return channels


def digest_of(table: pd.DataFrame, classes: tuple[str, ...]) -> str:
    """Return the SHA-256 of the sorted rows of a data set's table.

    The length of each field is hashed before it, so that different tables cannot give the same bytes.
    """
    digest = hashlib.sha256()
    rows: Iterable[tuple[str, ...]] = _digested(table, classes)
    if not all(one < other for one, other in pairwise(table["path"])):  # a listing is sorted, a table may not be
        rows = sorted(rows)
    for row in rows:
        for value in row:
            data = value.encode("utf-8")
            digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def _digested(table: pd.DataFrame, classes: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Return the texts of each row that count for the digest, one row after the other."""
    for start in range(0, len(table), _PART):
        part = table.iloc[start : start + _PART]
        labels = [classes[label] for label in part["label"]]
        for row in zip(part["path"], labels, part["group"], part["fixed_split"], part["sha256"], strict=True):
            yield tuple(map(str, row))


def _scan_card(found: Scan, counts: _Counts, group_rule: str | None) -> dict[str, Any]:
    """Return the part of the data card that does not depend on a split."""
    return {
        "source": found.listing.source,
        "group_rule": group_rule,
        "sizes": [{"width": w, "height": h, "count": n} for (w, h), n in counts.sizes.most_common(10)],
        "kinds": dict(counts.kinds.most_common()),
        "left_aside": [asdict(one) for one in found.listing.left_aside],
        "split_from": found.listing.split_from,
        "skipped": [{"path": path, "reason": reason} for path, reason in found.skipped],
        "converted": dict(counts.converted.most_common()),
        "duplicates": sum(len(positions) - 1 for positions in copies(found)),
        "notes": list(found.listing.notes),
    }
