"""Dataset: the table of all images of a source, and arrays of the decoded images at one size."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import zlib
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock
from numpy.typing import NDArray

from harness.atomic import allocate, atomic_write, disk_errors
from harness.config.data import DataConfig
from harness.config.fit import Fit
from harness.data.decoding import decode
from harness.data.parallel import Progress, over_images
from harness.data.scan import Scan, copies, fetch, scan
from harness.data.sources.listing import Listing
from harness.errors import DataError, ResourceError
from harness.safe_text import listed

COLUMNS = ("path", "label", "group", "fixed_split", "sha256", "pixels_sha256", "width", "height", "kind")
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
    _scan: Scan = field(repr=False)


def open_dataset(config: DataConfig, *, cache: Path, progress: Progress | None = None) -> Dataset:
    """Scan the source and build its table.

    Args:
        cache: folder for downloads, scans and arrays.
        progress: called with (images done, images in all).

    Raises:
        ConfigError, DataError, ResourceError: as `harness.data.scan.scan`; also if the group rule does not match every
            file name.
    """
    cache.mkdir(parents=True, exist_ok=True)
    found = scan(config, cache=cache, progress=progress)
    listing = found.listing
    groups, group_rule = _groups(found, config.split.group)
    classes = listing.classes
    label_of = {name: index for index, name in enumerate(classes)}
    samples = [listing.samples[row] for row in found.rows]
    table = pd.DataFrame(
        {
            "path": [sample.path for sample in samples],
            "label": np.array([label_of[sample.label] for sample in samples], dtype=np.int64),
            "group": groups,
            "fixed_split": [sample.fixed_split for sample in samples],
            "sha256": [image.sha256 for image in found.images],
            "pixels_sha256": [image.pixels_sha256 for image in found.images],
            "width": np.array([image.facts.width for image in found.images], dtype=np.int64),
            "height": np.array([image.facts.height for image in found.images], dtype=np.int64),
            "kind": [image.facts.kind for image in found.images],
        },
        columns=list(COLUMNS),
    )
    return Dataset(
        name=listing.name,
        rendered=listing.rendered,
        classes=classes,
        table=table,
        digest=digest_of(table, classes),
        card=_scan_card(found, group_rule),
        _scan=found,
    )


def arrays(
    dataset: Dataset, config: DataConfig, size: int | Fit, *, cache: Path, progress: Progress | None = None
) -> Path:
    """Return the path of a read-only .npy file (N, size, size, 3) with all images; make the file if necessary.

    The type is uint8, or uint16 with full scale 65535 if any image has more than 8 bits. The file's name is a digest
    of everything that determines its content. An existing file is used only if its checksum fits.

    Args:
        size: pixels a side; with `resize: weights`, the Fit of the weights.
        cache: folder of the arrays.
        progress: called with (images done, images in all).

    Raises:
        DataError: an image changed since the scan.
        ResourceError: there is not enough space on the disk.
    """
    size = Fit(size) if isinstance(size, int) else size
    deep = any(image.facts.deep for image in dataset._scan.images)
    shape, dtype = (len(dataset.table), size.side, size.side, 3), np.dtype(np.uint16 if deep else np.uint8)
    path = array_path(dataset.digest, config, size, cache=cache)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if _is_whole(path, shape, dtype):
                return path
            _check_space(path, int(np.prod(shape)) * dtype.itemsize)
            temporary = path.with_name(f".{path.stem}.part")
            try:
                _fill(temporary, shape, dtype, dataset, config, size, progress)
                atomic_write(path.with_suffix(".crc"), str(_checksum(temporary)).encode())
                temporary.chmod(0o444)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
    return path


def array_path(digest: str, config: DataConfig, size: Fit, *, cache: Path) -> Path:
    """Return the path of a data set's array; its name is a digest of everything that determines its content."""
    shape = [size.side, size.shorter, size.interpolation] if size.by_weights else size.side
    rule = [digest, shape, config.resize, config.bit_depth, config.background, _VERSION, decode.VERSION]
    return cache / "images" / f"{hashlib.sha256(json.dumps(rule).encode()).hexdigest()[:32]}.npy"


def is_whole(path: Path) -> bool:
    """Return whether the file of an array has the checksum that was stored when it was made."""
    try:
        return _checksum(path) == int(path.with_suffix(".crc").read_bytes())
    except (OSError, ValueError):
        return False


def _fill(
    path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    dataset: Dataset,
    config: DataConfig,
    size: Fit,
    progress: Progress | None,
) -> None:
    """Decode every image into a new .npy file and sync it."""
    with path.open("wb+") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        )
        # Reserve the space now: if the disk were full later, writing to a mapped page would kill the process.
        allocate(stream, int(np.prod(shape)) * dtype.itemsize)
    target = np.load(path, mmap_mode="r+")
    listing, found = dataset._scan.listing, dataset._scan

    def one(index: int) -> None:
        target[index] = _square(listing, found.rows[index], found.images[index].pixels_sha256, dtype, config, size)

    with decode.quiet():
        over_images(one, shape[0], progress)
    target.flush()


def _square(
    listing: Listing, row: int, wanted: str, dtype: np.dtype[Any], config: DataConfig, size: Fit
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return one image in its final size and type."""
    path = listing.samples[row].path
    try:
        pixels, scanned = fetch(listing, row, config)
    except DataError as error:
        raise DataError(f"{path} was readable during the scan, but now it {error}; start the study again.") from None
    if scanned.pixels_sha256 != wanted:
        raise DataError(
            f"{path} changed after it was scanned; start the study again when nothing changes its folder any more."
        )
    try:
        fitted = decode.fit(pixels, size, config.resize, config.background)
    except DataError as error:
        raise DataError(f"{path} {error}") from None
    if dtype == np.uint16 and fitted.dtype == np.uint8:
        return fitted.astype(np.uint16) * np.uint16(257)
    return fitted


def _is_whole(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Return whether the file has this shape and type, and the checksum that was stored when it was made."""
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
        return stored.shape == shape and stored.dtype == dtype and is_whole(path)
    except (OSError, ValueError, EOFError):
        return False


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            value = zlib.crc32(block, value)
    return value


def _check_space(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < needed * 1.02 + (16 << 20):
        raise ResourceError(
            f"the images need {needed >> 20} MiB in {path.parent}, but {free >> 20} MiB are free: "
            "make room, choose a smaller data.image_size, or move the state with HARNESS_HOME."
        )


def _groups(found: Scan, rule: str | None) -> tuple[list[str], str | None]:
    """Return the group of each image ("" for none), and the rule as the data card shows it."""
    listing = found.listing
    samples = [listing.samples[row] for row in found.rows]
    if rule is None or (listing.group_rule is not None and listing.group_rule.startswith("column ")):
        return [sample.group for sample in samples], listing.group_rule
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise DataError(f"data.split.group must be a regular expression, but {rule!r} is not: {error}") from None
    names = [sample.path.rsplit("/", 1)[-1] for sample in samples]
    matches = [pattern.search(name) for name in names]
    missed = [sample.path for sample, match in zip(samples, matches, strict=True) if match is None]
    if missed:
        raise DataError(
            f"the group rule {rule!r} must match every file name, but it matches {len(names) - len(missed)} of "
            f"{len(names)}; change data.split.group (null: no groups; for a table it may name a column). These images "
            "have no group:\n" + listed(missed)
        )
    # The group is the match of the first parenthesis, or the whole match if that parenthesis is optional and unused.
    return [(m.group(1) or m.group(0)) if m.re.groups else m.group(0) for m in matches if m is not None], rule


def digest_of(table: pd.DataFrame, classes: tuple[str, ...]) -> str:
    """Return the SHA-256 of the sorted rows of a data set's table.

    The length of each field is hashed before it, so that different tables cannot give the same bytes.
    """
    labels = [classes[label] for label in table["label"]]
    columns = [table["path"], labels, table["group"], table["fixed_split"], table["sha256"]]
    digest = hashlib.sha256()
    for row in sorted(zip(*columns, strict=True)):
        for value in row:
            data = str(value).encode("utf-8")
            digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def _scan_card(found: Scan, group_rule: str | None) -> dict[str, Any]:
    """Return the part of the data card that does not depend on a split."""
    facts = [image.facts for image in found.images]
    sizes = Counter((fact.width, fact.height) for fact in facts)
    return {
        "source": found.listing.source,
        "group_rule": group_rule,
        "sizes": [{"width": w, "height": h, "count": n} for (w, h), n in sizes.most_common(10)],
        "kinds": dict(Counter(fact.kind for fact in facts).most_common()),
        "left_aside": [asdict(one) for one in found.listing.left_aside],
        "split_from": found.listing.split_from,
        "skipped": [{"path": path, "reason": reason} for path, reason in found.skipped],
        "converted": dict(Counter(label for fact in facts for label in fact.converted).most_common()),
        "duplicates": sum(len(positions) - 1 for positions in copies(found)),
        "notes": list(found.listing.notes),
    }
