"""The grouped jackknife of every metric, vectorised: each group of test images is left out once.

A metric is a function of sums over images (right answers by class, true and predicted counts, losses), so leaving a
group out is a subtraction. The spread of the metric over the groups left out gives its variance without chance. Where
a class has few images it errs on the safe side: with n images a class, the variance of its recall comes out by
n / (n - 1) too large, where a bootstrap's is about as much too small.

After: Quenouille 1956, Tukey 1958; Efron and Stein 1981 (its bias is upward).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from harness.results.metrics import CALIBRATION_BINS, calibration_bins, loss_of_each

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Value = Callable[[Floats], Floats]  # sums (B, K) -> metric (B,)


class _Parts(NamedTuple):
    """A metric taken apart: what images add to the sums, and what the sums make."""

    kinds: Floats  # (kinds, K): images that add the same are one kind
    kind_of: Ints  # (images,)
    value: Value


def group_index(groups: ArrayLike | None, images: int) -> Ints:
    """Group numbers (images,) from 0; without groups each image is its own.

    Raises:
        ValueError: not one name an image, names that are NaN or of several kinds, or a single group, whose luck
            nothing could tell.
    """
    if groups is None:
        return np.arange(images, dtype=np.int64)
    names = np.asarray(groups)
    if names.shape != (images,):
        raise ValueError(f"groups must name one group an image, but got {names.shape} for {images} images")
    if names.dtype.kind == "f" and np.isnan(names).any():
        raise ValueError("groups must name every image's group, but some are NaN")
    try:
        index = np.unique(names, return_inverse=True)[1].astype(np.int64)
    except TypeError as error:
        raise ValueError(f"groups must be names of one kind that can be sorted, but {error}") from None
    if images > 1 and not index.any():
        raise ValueError("groups must name two groups or more: one alone does not show how much groups differ")
    return index


def without_each(
    objective: str, predictions: Sequence[NDArray[Any]], labels: Ints, index: Ints, classes: int
) -> Floats:
    """The metric of every prediction with each group left out in turn: (groups, len(predictions))."""
    groups = int(index.max()) + 1
    order = np.argsort(index, kind="stable")
    starts = np.searchsorted(index[order], np.arange(groups))
    columns = []
    for prediction in predictions:
        kinds, kind_of, value = _parts(objective, prediction, labels, classes)
        total = np.bincount(kind_of, minlength=len(kinds)) @ kinds
        if groups == labels.size:
            columns.append(value(total - kinds)[kind_of[order]])
        else:
            columns.append(value(total - np.add.reduceat(kinds[kind_of[order]], starts, axis=0)))
    return np.stack(columns, axis=1)


def variance(left_out: Floats) -> Floats:
    """The jackknife's variance of each column, from `without_each` (groups, ...)."""
    found: Floats = left_out.var(axis=0) * (len(left_out) - 1)
    return found


def _parts(objective: str, prediction: NDArray[Any], labels: Ints, classes: int) -> _Parts:
    n = labels.size
    each = np.arange(n)
    if objective == "log_loss":
        return _Parts(np.stack([loss_of_each(prediction, labels), np.ones(n)], axis=1), each, _ratio)
    if objective == "auroc":
        influence, value = _auroc_influence(prediction, labels)
        return _Parts(influence, each, value)
    if objective == "calibration_error":
        bins, gap = calibration_bins(prediction, labels)
        rows = np.zeros((n, CALIBRATION_BINS + 1))
        rows[each, bins] = gap
        rows[:, -1] = 1
        return _Parts(rows, each, lambda sums: np.abs(sums[:, :-1]).sum(axis=1) / sums[:, -1])

    predicted = prediction.argmax(axis=1) if prediction.ndim == 2 else prediction.astype(np.int64)
    pairs, kind_of = np.unique(labels * classes + predicted, return_inverse=True)
    true, given = np.eye(classes)[pairs // classes], np.eye(classes)[pairs % classes]
    kinds = np.concatenate([true * given, true, given], axis=1)
    return _Parts(kinds, kind_of, {
        "accuracy": _accuracy, "balanced_accuracy": _mean_recall, "macro_f1": _macro_f1, "mcc": _mcc,
    }[objective])  # fmt: skip


def _ratio(sums: Floats) -> Floats:
    quotient: Floats = sums[:, 0] / sums[:, 1]
    return quotient


def _counts(sums: Floats) -> tuple[Floats, Floats, Floats]:
    """Right answers, true and predicted counts of each class, (B, C) each."""
    right, true, predicted = np.split(sums, 3, axis=1)
    return right, true, predicted


def _accuracy(sums: Floats) -> Floats:
    right, true, _ = _counts(sums)
    share: Floats = right.sum(axis=1) / true.sum(axis=1)
    return share


def _mean_recall(sums: Floats) -> Floats:
    right, true, _ = _counts(sums)
    recall = np.divide(right, true, out=np.zeros_like(right), where=true > 0)
    mean: Floats = recall.sum(axis=1) / (true > 0).sum(axis=1)
    return mean


def _macro_f1(sums: Floats) -> Floats:
    right, true, predicted = _counts(sums)
    total = true + predicted
    f1 = np.divide(2 * right, total, out=np.zeros_like(right), where=total > 0)
    mean: Floats = f1.sum(axis=1) / (total > 0).sum(axis=1)
    return mean


def _mcc(sums: Floats) -> Floats:
    right, true, predicted = _counts(sums)
    n = true.sum(axis=1)
    above = right.sum(axis=1) * n - (true * predicted).sum(axis=1)
    spread = (n**2 - (predicted**2).sum(axis=1)) * (n**2 - (true**2).sum(axis=1))
    mcc: Floats = np.divide(above, np.sqrt(np.maximum(spread, 0)), out=np.zeros_like(above), where=spread > 0)
    return mcc


def _auroc_influence(prediction: NDArray[Any], labels: Ints) -> tuple[Floats, Value]:
    """AUROC to first order: each image's influence by its placement among the other side.

    After DeLong et al. 1988 and Obuchowski 1997 (clustered images); a replicate is then a sum like the others.
    """
    n, classes = prediction.shape
    areas, influence = [], np.zeros(n)
    for k in range(classes):
        positive = labels == k
        p = int(positive.sum())
        if p in (0, n):
            continue
        ranks = rankdata(prediction[:, k])
        placement = np.where(positive, 0.0, 1.0)
        placement[positive] = (ranks[positive] - rankdata(prediction[positive, k])) / (n - p)
        placement[~positive] = 1 - (ranks[~positive] - rankdata(prediction[~positive, k])) / p
        area = placement[positive].mean()
        areas.append(area)
        influence += (placement - area) * np.where(positive, n / p, n / (n - p))
    mean = float(np.mean(areas)) if areas else 0.5
    influence /= max(len(areas), 1)
    return np.stack([influence, np.ones(n)], axis=1), lambda sums: mean + sums[:, 0] / sums[:, 1]
