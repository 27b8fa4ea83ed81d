"""The grouped jackknife of every metric, vectorised: the metric with each group of test images left out once.

A metric is a value of sums over images (see `harness.results.metrics`), so leaving a group out is a subtraction. The
spread of the metric over the groups gives its variance without random numbers. For a class of few images it errs on
the safe side: with n images in the class, the variance of its recall is too large by n / (n - 1), while that of a
bootstrap is too small by about as much.

After: Quenouille 1956, Tukey 1958; Efron and Stein 1981 (its bias is upward).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.results.metrics import METRICS, parts_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def group_index(groups: ArrayLike | None, images: int) -> Ints:
    """Return the group number of each image, (images,) from 0; without groups each image is its own group.

    Raises:
        ValueError: the number of names is not the number of images, a name is NaN, the names are of several types, or
            there is a single group, which does not show how much groups differ.
    """
    if groups is None:
        return np.arange(images, dtype=np.int64)
    names = np.asarray(groups)
    if names.shape != (images,):
        raise ValueError(f"groups must hold one name for each image, but got {names.shape} for {images} images")
    if names.dtype.kind == "f" and np.isnan(names).any():
        raise ValueError("groups must name the group of every image, but some names are NaN")
    try:
        index = np.unique(names, return_inverse=True)[1].astype(np.int64)
    except TypeError as error:
        raise ValueError(f"groups must be names of one type that can be sorted, but {error}") from None
    if images > 1 and not index.any():
        raise ValueError("groups must name two groups or more, but got one, which does not show how much groups differ")
    return index


def without_each(
    objective: str, predictions: Sequence[NDArray[Any]], labels: Ints, index: Ints, classes: int
) -> Floats:
    """Return the metric of every prediction with each group left out in turn, (groups, len(predictions))."""
    groups = int(index.max()) + 1
    order = np.argsort(index, kind="stable")
    starts = np.searchsorted(index[order], np.arange(groups))
    value, columns = METRICS[objective].value, []
    for prediction in predictions:
        kinds, kind_of, offset = parts_of(objective, prediction, labels, classes)
        total = np.bincount(kind_of, minlength=len(kinds)) @ kinds
        if groups == labels.size:
            columns.append(value(total - kinds)[kind_of[order]] + offset)
        else:
            columns.append(value(total - np.add.reduceat(kinds[kind_of[order]], starts, axis=0)) + offset)
    return np.stack(columns, axis=1)


def variance(left_out: Floats) -> Floats:
    """Return the jackknife variance of each column of what `without_each` returned, (groups, ...)."""
    found: Floats = left_out.var(axis=0) * (len(left_out) - 1)
    return found
