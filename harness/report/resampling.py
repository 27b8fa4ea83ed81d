"""The cluster bootstrap of every metric, vectorised: groups of test images are drawn again, with replacement.

A metric is a function of sums over images (right answers by class, a confusion matrix, losses). The sums of each
group are taken once, so that a replicate is a weighted sum of groups: one matrix product for all of them.
Groups with equal sums count as one kind of group, drawn with its frequency.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from harness.results.metrics import CALIBRATION_BINS, calibration_bins, loss_of_each

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Value = Callable[[Floats], Floats]  # sums (B, K) -> metric (B,)

REPLICATES = 2000
_CELLS_AT_ONCE = 4_000_000  # of the weight matrix: 32 MB


def group_index(groups: ArrayLike | None, images: int) -> Ints:
    """Group numbers (images,) from 0; without groups each image is its own."""
    if groups is None:
        return np.arange(images, dtype=np.int64)
    names = np.asarray(groups)
    if names.shape != (images,):
        raise ValueError(f"groups must name one group an image, but got {names.shape} for {images} images")
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def replicates(
    objective: str,
    predictions: Sequence[NDArray[Any]],
    labels: Ints,
    index: Ints,
    classes: int,
    rng: int | np.random.Generator,
    count: int = REPLICATES,
) -> Floats:
    """The metric of every prediction on the same redrawn groups: (count, len(predictions))."""
    generator = np.random.default_rng(rng)
    blocks, values = [], []
    for prediction in predictions:
        of_images, value = _sums(objective, prediction, labels, classes)
        of_groups = np.zeros((int(index.max()) + 1, of_images.shape[1]))
        np.add.at(of_groups, index, of_images)
        blocks.append(of_groups)
        values.append(value)
    edges = np.cumsum([0, *(block.shape[1] for block in blocks)])
    kinds, frequency = np.unique(np.concatenate(blocks, axis=1), axis=0, return_counts=True)
    groups = int(frequency.sum())

    drawn = np.empty((count, len(predictions)))
    step = max(1, _CELLS_AT_ONCE // len(kinds))
    for start in range(0, count, step):
        rows = min(step, count - start)
        sums = generator.multinomial(groups, frequency / groups, size=rows).astype(float) @ kinds
        for column, value in enumerate(values):
            drawn[start : start + rows, column] = value(sums[:, edges[column] : edges[column + 1]])
    return drawn


def _sums(objective: str, prediction: NDArray[Any], labels: Ints, classes: int) -> tuple[Floats, Value]:
    """What each image adds, (images, K), and the metric as a function of the sums."""
    n = labels.size
    if objective == "log_loss":
        return np.stack([loss_of_each(prediction, labels), np.ones(n)], axis=1), _ratio
    if objective == "auroc":
        return _auroc_influence(prediction, labels)
    if objective == "calibration_error":
        bins, gap = calibration_bins(prediction, labels)
        rows = np.zeros((n, CALIBRATION_BINS + 1))
        rows[np.arange(n), bins] = gap
        rows[:, -1] = 1
        return rows, lambda sums: np.abs(sums[:, :-1]).sum(axis=1) / sums[:, -1]

    predicted = prediction.argmax(axis=1) if prediction.ndim == 2 else prediction.astype(np.int64)
    if objective == "accuracy":
        return np.stack([predicted == labels, np.ones(n)], axis=1).astype(float), _ratio
    if objective == "balanced_accuracy":
        truth = np.eye(classes)[labels]
        return np.concatenate([truth * (predicted == labels)[:, None], truth], axis=1), _mean_recall
    rows = np.zeros((n, classes * classes))
    rows[np.arange(n), labels * classes + predicted] = 1
    return rows, {"macro_f1": _macro_f1, "mcc": _mcc}[objective]


def _ratio(sums: Floats) -> Floats:
    quotient: Floats = sums[:, 0] / sums[:, 1]
    return quotient


def _mean_recall(sums: Floats) -> Floats:
    right, support = np.split(sums, 2, axis=1)
    recall = np.divide(right, support, out=np.zeros_like(right), where=support > 0)
    mean: Floats = recall.sum(axis=1) / (support > 0).sum(axis=1)
    return mean


def _matrices(sums: Floats) -> tuple[Floats, Floats, Floats]:
    """Right answers, true and predicted counts of each class, (B, C) each."""
    classes = round(sums.shape[1] ** 0.5)
    counts = sums.reshape(-1, classes, classes)
    return np.einsum("bii->bi", counts), counts.sum(axis=2), counts.sum(axis=1)


def _macro_f1(sums: Floats) -> Floats:
    right, true, predicted = _matrices(sums)
    total = true + predicted
    f1 = np.divide(2 * right, total, out=np.zeros_like(right), where=total > 0)
    mean: Floats = f1.sum(axis=1) / (total > 0).sum(axis=1)
    return mean


def _mcc(sums: Floats) -> Floats:
    right, true, predicted = _matrices(sums)
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
