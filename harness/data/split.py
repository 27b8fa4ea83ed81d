"""The split: which images are for training, validation and test, drawn at random in whole groups.

Parts are arrays of "train", "validation", "test" and "unused", one value for each row of the data set's table. A *unit*
is a set of images that must stay in one part: the images of one group, and all copies of an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from harness.config.data import SplitConfig
from harness.errors import DataError
from harness.safe_text import listed

Parts = NDArray[np.str_]  # (N,), dtype U10
Codes = NDArray[np.int64]  # (N,), 0..2 are train, validation, test

CANDIDATES = 200  # random draws of groups, of which the one with the best class proportions is used
MAX_CANDIDATES = 4000  # if none of those draws gives every part two images of every class
MIN_IMAGES = 2  # of each class in each part
_NAMES = ("train", "validation", "test")
_TRAIN, _VALIDATION, _TEST = range(3)
_DRAW, _REDRAW, _LIMIT = 1, 2, 3  # random streams of one seed


def draw(
    table: pd.DataFrame,
    config: SplitConfig,
    *,
    seed: int,
    dedupe: Literal["error", "train"] = "error",
    classes: Sequence[str] = (),
) -> Parts:
    """Draw the parts of a data set for the first time. Parts that the user fixed stay; missing parts are drawn.

    Missing parts are drawn from the images without a fixed part, or from the training images if all images have one.
    The fractions in `config` are shares of all images.

    Args:
        table: `Dataset.table`; label, group, fixed_split and pixels_sha256 are used.
        seed: of the random draw.
        dedupe: `train` puts all copies of an image that is in two fixed parts into the training part.
        classes: names of the labels, for messages.

    Raises:
        DataError: a group or copies of an image are in two fixed parts, there are too few groups, or a part would have
            fewer than two images of a class.
    """
    parts, units = _settled(table, dedupe)
    fixed = _fixed(table)
    share = {_TEST: config.test, _VALIDATION: config.validation}
    wanted = {part: max(1, round(share[part] * len(table))) for part in share if not (fixed == part).any()}
    pool = parts < 0
    if wanted:
        random = np.random.default_rng([seed, _DRAW])
        parts[pool] = _drawn(table[pool], units[pool], wanted, random)
    parts[parts < 0] = _TRAIN
    _check_least(table, parts, classes)
    return np.array(_NAMES, dtype="U10")[parts]


def redraw(table: pd.DataFrame, parts: Parts, config: SplitConfig, *, seed: int, classes: Sequence[str] = ()) -> Parts:
    """Draw training and validation again; the test part does not change.

    The validation part has the same size as before, as far as whole groups allow. "unused" rows stay unused. If the
    user fixed a validation part, nothing changes.
    """
    if (_fixed(table) == _VALIDATION).any():
        return parts.copy()
    settled, units = _settled(table, "train")
    pool = (settled < 0) & np.isin(parts, ["train", "validation"])
    wanted = {_VALIDATION: int((parts == "validation").sum())}
    drawn = parts.copy()
    random = np.random.default_rng([seed, _REDRAW])
    drawn[pool] = np.array(_NAMES, dtype="U10")[_drawn(table[pool], units[pool], wanted, random)]
    used = drawn != "unused"
    codes = np.array([_NAMES.index(name) for name in drawn[used]], dtype=np.int64)
    _check_least(table[used], codes, classes)
    return drawn


def limit(table: pd.DataFrame, parts: Parts, n: int, *, seed: int, classes: Sequence[str] = ()) -> Parts:
    """Keep at most `n` training and validation images, with the same proportions of parts and classes.

    The other images become "unused"; the test part does not change. Every class keeps at least two images in each of
    the two parts.

    Raises:
        DataError: `n` is too small for that.
    """
    labels = table["label"].to_numpy()
    names, cells = ("train", "validation"), list[NDArray[np.int64]]()
    for name in names:
        cells += [np.flatnonzero((parts == name) & (labels == label)) for label in np.unique(labels)]
    cells = [rows for rows in cells if len(rows)]
    sizes = np.array([len(rows) for rows in cells])
    if n >= sizes.sum():
        return parts.copy()
    least = np.minimum(sizes, MIN_IMAGES)
    if least.sum() > n:
        raise DataError(
            "data.limit must leave two training and two validation images of each class, "
            f"{least.sum()} in all, but it is {n}; use a larger limit."
        )
    random = np.random.default_rng([seed, _LIMIT])
    limited = parts.copy()
    for rows, keep in zip(cells, _shares(sizes, n, least), strict=True):
        limited[random.permutation(rows)[keep:]] = "unused"
    return limited


# --- what is fixed, and what must stay together -------------------------------------------------------------


def nested(labels: NDArray[np.int64], fraction: float, *, seed: int) -> NDArray[np.int64]:
    """Draw a fraction of these images: the same fraction of every class, but at least one image.

    With the same seed, the images of a smaller fraction are all among those of a larger one.

    Returns:
        Indices into `labels`, ascending.
    """
    random = np.random.default_rng(seed)
    kept = []
    for label in np.unique(labels):
        own = random.permutation(np.flatnonzero(labels == label))
        kept.append(own[: max(1, round(fraction * len(own)))])
    return np.sort(np.concatenate(kept)).astype(np.int64)


def _fixed(table: pd.DataFrame) -> Codes:
    """Return the part that the user fixed for each row, or -1."""
    codes = table["fixed_split"].map({"": -1, "train": _TRAIN, "validation": _VALIDATION, "test": _TEST})
    return np.asarray(codes, dtype=np.int64)


def _settled(table: pd.DataFrame, dedupe: str) -> tuple[Codes, Codes]:
    """Return (N,) parts, with -1 for rows whose part has to be drawn, and (N,) units."""
    fixed = _fixed(table)
    free = fixed < 0
    pixels, _ = pd.factorize(table["pixels_sha256"])
    copied = np.isin(pixels, _straddling(pixels, fixed))
    if copied.any() and dedupe == "error":
        raise DataError(
            "an image must be in one part of the split, but these are in several; remove the copies, or set "
            "data.dedupe: train:\n" + listed(table["path"][copied])
        )
    parts = np.where(copied, _TRAIN, fixed)
    groups, names = pd.factorize(table["group"].where(table["group"] != ""))
    straddling = _straddling(groups, parts)
    straddling = straddling[straddling >= 0]
    if len(straddling):
        raise DataError(
            f"a group must be in one part of the split, but the folders or the table put {len(straddling)} groups into "
            "several; move each group into one part, or leave out the parts so that they are drawn:\n"
            + listed(str(names[group]) for group in straddling)
        )
    units = _units(groups, pixels)
    torn = _straddling(units, parts)
    if not len(torn):
        units = _with_near(table, units, parts)
    if len(torn):
        raise DataError(
            "groups that share an image must be in one part of the split, but the folders or the table put them into "
            "several; remove the copies:\n"
            + listed(table["path"][np.isin(units, torn) & (table.duplicated("pixels_sha256", keep=False))])
        )
    owner = np.full(units.max(initial=-1) + 1, -1, dtype=np.int64)
    np.maximum.at(owner, units, parts)
    parts = owner[units]
    if not free.any():
        parts[(parts == _TRAIN) & ~np.isin(units, units[copied])] = -1
    return parts, units


def _with_near(table: pd.DataFrame, units: Codes, parts: Codes) -> Codes:
    """Join the units that near duplicates connect, except those that the user put into two parts."""
    if "near" not in table:
        return units
    near = table["near"].to_numpy(np.int64)
    joined = _units(near, units)
    apart = np.isin(joined, _straddling(joined, parts))
    return _units(np.where(apart, -1, near), units) if apart.any() else joined


def _straddling(keys: Codes, parts: Codes) -> Codes:
    """Return the keys whose rows have more than one part; rows without a part or key are ignored."""
    known = (parts >= 0) & (keys >= 0)
    pairs = np.unique(np.stack([keys[known], parts[known]]), axis=1)
    found, counts = np.unique(pairs[0], return_counts=True)
    return np.asarray(found[counts > 1], dtype=np.int64)


def _units(groups: Codes, pixels: Codes) -> Codes:
    """Return the (N,) numbers of the units: rows with the same group (if they have one) or the same pixels."""
    n = len(groups)
    rows = np.arange(n)
    grouped = groups >= 0
    ends = np.concatenate([n + pixels, n + pixels.max(initial=-1) + 1 + groups[grouped]])
    starts = np.concatenate([rows, rows[grouped]])
    nodes = int(max(ends.max(initial=0) + 1, n))
    graph = coo_array((np.ones(len(ends), np.int8), (starts, ends)), shape=(nodes, nodes))
    _, component = connected_components(graph, directed=False)
    return np.asarray(np.unique(component[:n], return_inverse=True)[1], dtype=np.int64)


# --- drawing ------------------------------------------------------------------------------------------------


def _drawn(table: pd.DataFrame, units: Codes, wanted: Mapping[int, int], random: np.random.Generator) -> Codes:
    """Draw a part for each row: the `wanted` number of images for some parts; the other images train."""
    _, units = np.unique(units, return_inverse=True)
    count = int(units.max(initial=-1)) + 1
    needed = len(wanted) + 1
    grouped = bool((table["group"] != "").any())
    if count < needed:
        raise DataError(
            f"a split into {needed} parts needs at least {needed} {'groups' if grouped else 'different images'}, "
            f"but there are {count}: use a data.split.group with smaller groups (or null, if images are independent), "
            "give a part of your own (train/, val/, test/ folders, or a split column), or add data."
        )
    _, labels = np.unique(table["label"].to_numpy(), return_inverse=True)
    if grouped or len(np.unique(np.stack([units, labels]), axis=1).T) > count:  # near duplicates of two classes
        return _best_of_many(labels, units, wanted, random)
    return _class_by_class(labels, units, wanted, random)


def _class_by_class(labels: Codes, units: Codes, wanted: Mapping[int, int], random: np.random.Generator) -> Codes:
    """Draw single images: the same share of each class, but at least two images."""
    sizes = np.bincount(labels)
    least = np.where(sizes >= MIN_IMAGES * (len(wanted) + 1), MIN_IMAGES, 0)
    takes = {part: _shares(sizes, min(n, int(sizes.sum())), least) for part, n in wanted.items()}
    parts = np.full(len(labels), _TRAIN, dtype=np.int64)
    for label in range(len(sizes)):
        rows = np.flatnonzero(labels == label)
        names, place = np.unique(units[rows], return_inverse=True)
        order = random.permutation(len(names))
        amounts = np.bincount(place)
        before = np.empty(len(names), dtype=np.int64)
        before[order] = np.cumsum(amounts[order]) - amounts[order]  # images in units drawn earlier
        start = 0
        for part in wanted:
            end = start + takes[part][label]
            parts[rows[(before[place] >= start) & (before[place] < end)]] = part
            start = end
    return parts


def _best_of_many(labels: Codes, units: Codes, wanted: Mapping[int, int], random: np.random.Generator) -> Codes:
    """Draw whole groups: shuffle them, cut the sequence where the sizes fit best, and repeat.

    Of many random orders, the one with the best class proportions is used.
    """
    count, classes = int(units.max()) + 1, int(labels.max()) + 1
    held = np.zeros((count, classes), dtype=np.int64)  # images of each class in each unit
    np.add.at(held, (units, labels), 1)
    sizes, total = held.sum(axis=1), held.sum(axis=0)
    best, best_rank = np.zeros(count, dtype=np.int64), (False, -np.inf)
    for number in range(MAX_CANDIDATES):
        if number >= CANDIDATES and best_rank[0]:
            break
        order = random.permutation(count)
        filled = np.cumsum(sizes[order])
        of_unit = np.full(count, _TRAIN, dtype=np.int64)
        begin, goal, left, distance = 0, 0, total.copy(), 0.0
        complete = True
        for place, (part, n) in enumerate(wanted.items()):
            goal += n
            last = count - (len(wanted) - place)  # leaves one unit for each of the remaining parts
            end = int(np.argmin(np.abs(filled[begin:last] - goal))) + begin + 1
            chosen = order[begin:end]
            of_unit[chosen] = part
            got, expected = held[chosen].sum(axis=0), total * (n / total.sum())
            distance += float(np.mean(((got - expected) / np.maximum(expected, MIN_IMAGES)) ** 2))
            distance += float((got.sum() - n) / n) ** 2
            complete &= bool((got >= MIN_IMAGES).all())
            left -= got
            begin = end
        rank = (complete and bool((left >= MIN_IMAGES).all()), -distance)
        if rank > best_rank:
            best, best_rank = of_unit, rank
    return best[units]


def _shares(sizes: NDArray[np.int64], n: int, least: NDArray[np.int64]) -> NDArray[np.int64]:
    """Divide `n` in proportion to `sizes` by the largest-remainder method, each share between `least` and its size."""
    exact = sizes * (n / max(int(sizes.sum()), 1))
    whole = np.clip(np.floor(exact), least, sizes).astype(np.int64)
    step = 1 if whole.sum() < n else -1
    while whole.sum() != n:
        short = (exact - whole) * step
        open_ = whole < sizes if step == 1 else whole > least
        if not open_.any():
            break
        whole[int(np.argmax(np.where(open_, short, -np.inf)))] += step
    return np.asarray(whole)


def _check_least(table: pd.DataFrame, parts: Codes, classes: Sequence[str]) -> None:
    labels = table["label"].to_numpy()
    number = max(int(labels.max(initial=-1)) + 1, len(classes))
    counts = np.zeros((number, 3), dtype=np.int64)
    np.add.at(counts, (labels, parts), 1)
    faults = []
    for label in np.flatnonzero((counts < MIN_IMAGES).any(axis=1)).tolist():
        rows = table[labels == label]
        groups = rows["group"][rows["group"] != ""].nunique()
        name = classes[label] if label < len(classes) else f"number {label}"
        held = ", ".join(f"{counts[label, part]} in {_NAMES[part]}" for part in range(3))
        faults.append(f"class {name}: {held} ({len(rows)} images" + (f" in {groups} groups)" if groups else ")"))
    if faults:
        raise DataError(
            f"every part of the split must have at least {MIN_IMAGES} images of each class, but some have fewer; add "
            "images, merge classes or leave them out with data.classes, leave out rare ones with data.min_images, or "
            "use "
            "smaller groups:\n" + listed(faults)
        )
