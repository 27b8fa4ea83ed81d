"""The one table of metrics, for training, confirmation and report: NumPy arrays in, floats out.

Predictions are probabilities (N, C) or class indices (N,); labels are class indices (N,) in 0..C-1.
A class that no label names cannot be scored: it is left out of every mean over classes, so a small
sample gives a number and never NaN. The numbers are scikit-learn's (tested), without its per-call cost.

A metric is a value of sums over the images. `score` takes the value of the whole sum; the jackknife takes the value
of the sum without a group of images (`harness.analysis.jackknife`). Both use the same formula.

To add a metric, add its row to METRICS, with a new `Sums` if it is not computed from counts. If a study file may name
it, add its name to `OBJECTIVES` in harness.config.study too. Training, log, verdict and page then use it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Direction = Literal["maximize", "minimize"]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CALIBRATION_BINS = 15


class Parts(NamedTuple):
    """What each image adds to the K sums of a metric."""

    kinds: Floats  # (kinds, K): images that add the same are one kind
    kind_of: Ints  # (N,)
    offset: float = 0.0  # added to the value, if the sums only tell how a metric varies around it (AUROC)


@dataclass(frozen=True)
class Sums:
    """How images add up to the numbers that a metric is computed from.

    Both functions take predictions, labels (N,) and the number of classes. They stand beside each other because the
    sum over all images is quicker, and rounded less often, if it is not added up from its parts.
    """

    total: Callable[[NDArray[Any], Ints, int], Floats]  # -> (K,), over all images
    parts: Callable[[NDArray[Any], Ints, int], Parts]
    predictions: Literal["classes", "scores", "probabilities"]  # what they need; scores may have any sum


@dataclass(frozen=True)
class Metric:
    """What a metric is called on the page, which way is better, and what it is computed from."""

    label: str
    direction: Direction
    sums: Sums
    value: Callable[[Floats], Floats]  # sums (B, K) -> metric (B,)
    unit: str = ""  # in which differences are counted; "points": people read the metric in percent, 83.1 %
    bounds: tuple[float, float] = (0.0, 1.0)  # the lowest and the highest value it can have

    @property
    def sign(self) -> Literal[1, -1]:
        """The factor that turns a score into one of which more is better."""
        return 1 if self.direction == "maximize" else -1

    @property
    def in_percent(self) -> bool:
        return self.unit == "points"

    @property
    def needs_probabilities(self) -> bool:
        """Whether class indices are not enough."""
        return self.sums.predictions != "classes"


def direction(objective: str) -> Direction:
    """Which way `objective` gets better; KeyError if there is no such metric."""
    return METRICS[objective].direction


def sign_of(objective: str) -> Literal[1, -1]:
    """The factor that turns a score into one of which more is better: -1 or 1. KeyError as in `direction`."""
    return METRICS[objective].sign


def confusion(predicted: ArrayLike, labels: ArrayLike, num_classes: int) -> Ints:
    """Counts (C, C): row = true class, column = predicted class."""
    predicted, labels = np.asarray(predicted, np.int64), np.asarray(labels, np.int64)
    counts = np.bincount(labels * num_classes + predicted, minlength=num_classes * num_classes)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


def score(objective: str, predictions: ArrayLike, labels: ArrayLike, num_classes: int | None = None) -> float:
    """One metric.

    Args:
        objective: a key of METRICS.
        predictions: probabilities (N, C), or class indices (N,) if the metric needs no more.
        labels: class indices (N,).
        num_classes: C, for class indices; one more than the largest index where it is missing.

    Raises:
        ValueError: an unknown metric, class indices for a metric of probabilities, shapes or indices that do
            not fit, no image, or a value that is not finite.
    """
    if objective not in METRICS:
        raise ValueError(f"objective must be one of {', '.join(METRICS)}, but got {objective!r}")
    metric, predictions = METRICS[objective], np.asarray(predictions)
    if predictions.ndim == 2:
        probabilities, labels = _checked(predictions, labels)
        return _of_all(metric, _as_needed(metric, probabilities), labels, probabilities.shape[1])
    if metric.needs_probabilities:
        raise ValueError(f"{objective} needs probabilities of shape (N, C), but got class indices {predictions.shape}")
    predictions, labels = np.asarray(predictions, np.int64), np.asarray(labels, np.int64)
    if predictions.shape != labels.shape or not labels.size:
        raise ValueError(f"need one prediction a label and at least one, but got {predictions.shape}, {labels.shape}")
    num_classes = num_classes or int(max(predictions.max(), labels.max())) + 1
    if min(predictions.min(), labels.min()) < 0 or max(predictions.max(), labels.max()) >= num_classes:
        raise ValueError(f"class indices must lie in 0..{num_classes - 1}")
    return _of_all(metric, predictions, labels, num_classes)


def all_metrics(probabilities: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Every metric of METRICS, in its order, from probabilities (N, C); raises ValueError as `score` does."""
    probabilities, labels = _checked(np.asarray(probabilities), labels)
    predicted, classes = probabilities.argmax(axis=1), probabilities.shape[1]
    sums = {
        of: of.total(predicted if of.predictions == "classes" else probabilities, labels, classes)
        for of in {metric.sums for metric in METRICS.values()}
    }
    return {name: float(metric.value(sums[metric.sums][None])[0]) for name, metric in METRICS.items()}


def parts_of(objective: str, prediction: NDArray[Any], labels: Ints, classes: int) -> Parts:
    """What each image adds to the sums of a metric, for predictions of either form that were checked already."""
    metric = METRICS[objective]
    return metric.sums.parts(_as_needed(metric, prediction), labels, classes)


def _as_needed(metric: Metric, prediction: NDArray[Any]) -> NDArray[Any]:
    """Class indices for a metric of counts, and the prediction as it is for any other."""
    if metric.needs_probabilities:
        return prediction
    return prediction.argmax(axis=1) if prediction.ndim == 2 else prediction.astype(np.int64)


def _of_all(metric: Metric, prediction: NDArray[Any], labels: Ints, classes: int) -> float:
    """The score: the value of the sum over all images."""
    return float(metric.value(metric.sums.total(prediction, labels, classes)[None])[0])


def _checked(probabilities: NDArray[Any], labels: ArrayLike) -> tuple[Floats, Ints]:
    labels = np.asarray(labels, np.int64)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not labels.size:
        raise ValueError(
            "need probabilities (N, C) and labels (N,) with N at least 1, "
            f"but got {probabilities.shape} and {labels.shape}"
        )
    if not np.isfinite(probabilities).all():
        raise ValueError("probabilities must be finite, but some are NaN or infinite")
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ValueError(f"labels must lie in 0..{probabilities.shape[1] - 1}")
    return probabilities, labels


# Counts: right answers, labels and predictions of each class, (B, C) each.


def _count_totals(predicted: NDArray[Any], labels: Ints, classes: int) -> Floats:
    counts = confusion(predicted, labels, classes)
    return np.concatenate([np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)]).astype(np.float64)


def _count_parts(predicted: NDArray[Any], labels: Ints, classes: int) -> Parts:
    """One kind for each pair of true and predicted class that occurs."""
    pairs, kind_of = np.unique(labels * classes + predicted, return_inverse=True)
    true, given = np.eye(classes)[pairs // classes], np.eye(classes)[pairs % classes]
    return Parts(np.concatenate([true * given, true, given], axis=1), kind_of)


def _accuracy(sums: Floats) -> Floats:
    right, true, _ = np.split(sums, 3, axis=1)
    share: Floats = right.sum(axis=1) / true.sum(axis=1)
    return share


def _balanced_accuracy(sums: Floats) -> Floats:
    """Mean recall over the classes that occur among the labels."""
    right, true, _ = np.split(sums, 3, axis=1)
    return _mean_over_classes(right, true)


def _macro_f1(sums: Floats) -> Floats:
    """Mean F1 over the classes that occur among labels or predictions."""
    right, true, predicted = np.split(sums, 3, axis=1)
    return _mean_over_classes(2 * right, true + predicted)


def _mean_over_classes(above: Floats, below: Floats) -> Floats:
    """The mean of above / below over the classes with something below, (B,)."""
    if len(above) == 1:  # NumPy sums in pairs, so zeros between the classes would change the last bit of a score
        present = below[0] > 0
        above, below = above[:, present], below[:, present]
    ratio = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    mean: Floats = ratio.sum(axis=1) / (below > 0).sum(axis=1)
    return mean


def _mcc(sums: Floats) -> Floats:
    """Matthews correlation for many classes (Gorodkin 2004); 0 if labels or predictions hold a single class."""
    right, true, predicted = np.split(sums, 3, axis=1)
    n = true.sum(axis=1)
    above = right.sum(axis=1) * n - (true * predicted).sum(axis=1)
    spread = (n**2 - (predicted**2).sum(axis=1)) * (n**2 - (true**2).sum(axis=1))
    mcc: Floats = np.divide(above, np.sqrt(np.maximum(spread, 0)), out=np.zeros_like(above), where=spread > 0)
    return mcc


# Log-loss and AUROC: a sum and the number of images.


def _ratio(sums: Floats) -> Floats:
    quotient: Floats = sums[:, 0] / sums[:, 1]
    return quotient


def loss_of_each(probabilities: NDArray[Any], labels: Ints) -> Floats:
    """Cross-entropy of each image in nats; a probability of zero counts as its type's epsilon (16 nats in float32)."""
    kind = probabilities.dtype if probabilities.dtype in (np.float32, np.float64) else np.dtype(np.float64)
    of_truth = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return -np.log(np.clip(of_truth, np.finfo(kind).eps, 1.0))


def _loss_total(probabilities: NDArray[Any], labels: Ints, classes: int) -> Floats:
    return np.array([loss_of_each(probabilities, labels).sum(), len(labels)])


def _loss_parts(probabilities: NDArray[Any], labels: Ints, classes: int) -> Parts:
    n = len(labels)
    return Parts(np.stack([loss_of_each(probabilities, labels), np.ones(n)], axis=1), np.arange(n))


def _auroc_total(probabilities: NDArray[Any], labels: Ints, classes: int) -> Floats:
    """AUROC is no value of sums, so its total is the exact area, counted once."""
    return np.array([_auroc(probabilities, labels), 1.0])


def _auroc_parts(prediction: NDArray[Any], labels: Ints, classes: int) -> Parts:
    """AUROC to first order: each image's influence by its placement among the other side.

    After DeLong et al. 1988 and Obuchowski 1997 (clustered images); a replicate is then a sum like the others.
    """
    n = len(labels)
    areas, influence = [], np.zeros(n)
    for k in range(prediction.shape[1]):
        positive = labels == k
        p = int(positive.sum())
        if p in (0, n):
            continue
        ranks = _ranks(prediction[:, k])
        placement = np.where(positive, 0.0, 1.0)
        placement[positive] = (ranks[positive] - _ranks(prediction[positive, k])) / (n - p)
        placement[~positive] = 1 - (ranks[~positive] - _ranks(prediction[~positive, k])) / p
        area = placement[positive].mean()
        areas.append(area)
        influence += (placement - area) * np.where(positive, n / p, n / (n - p))
    influence /= max(len(areas), 1)
    return Parts(np.stack([influence, np.ones(n)], axis=1), np.arange(n), float(np.mean(areas)) if areas else 0.5)


def _auroc(probabilities: Floats, labels: Ints) -> float:
    """Macro one-vs-rest area under the ROC curve, by ranks; 0.5 where no class has both sides."""
    n, c = probabilities.shape
    positives = np.bincount(labels, minlength=c).astype(float)
    usable = (positives > 0) & (positives < n)
    if not usable.any():
        return 0.5
    ranks = np.stack([_ranks(column) for column in probabilities.T], axis=1)
    of_positives = np.bincount(labels, weights=ranks[np.arange(n), labels], minlength=c)
    pairs = positives * (n - positives)
    wins = of_positives - positives * (positives + 1) / 2
    return float((wins[usable] / pairs[usable]).mean())


def _ranks(values: Floats) -> Floats:
    """From 1; equal values share the mean of theirs. (scipy.stats would be 0.9 s of every worker's start.)"""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


# Calibration error: how far the answers of each bin lie above their confidence, and the number of images.


def calibration_bins(probabilities: NDArray[Any], labels: Ints) -> tuple[Ints, Floats]:
    """Each image's bin of confidence, (k/15, (k+1)/15], and how far its answer (1 or 0) lies above its confidence."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
    return bins, right - confidence


def _calibration_total(probabilities: NDArray[Any], labels: Ints, classes: int) -> Floats:
    bins, gap = calibration_bins(probabilities, labels)
    return np.append(np.bincount(bins, weights=gap, minlength=CALIBRATION_BINS), len(labels))


def _calibration_parts(probabilities: NDArray[Any], labels: Ints, classes: int) -> Parts:
    each = np.arange(len(labels))
    bins, gap = calibration_bins(probabilities, labels)
    rows = np.zeros((len(labels), CALIBRATION_BINS + 1))
    rows[each, bins] = gap
    rows[:, -1] = 1
    return Parts(rows, each)


def _calibration_error(sums: Floats) -> Floats:
    """Expected gap between confidence and accuracy over equal-width bins (Guo et al. 2017)."""
    error: Floats = np.abs(sums[:, :-1]).sum(axis=1) / sums[:, -1]
    return error


COUNTS = Sums(_count_totals, _count_parts, "classes")
LOSSES = Sums(_loss_total, _loss_parts, "probabilities")
AREAS = Sums(_auroc_total, _auroc_parts, "scores")
BINS = Sums(_calibration_total, _calibration_parts, "probabilities")

METRICS: dict[str, Metric] = {
    "balanced_accuracy": Metric("balanced accuracy", "maximize", COUNTS, _balanced_accuracy, "points"),
    "accuracy": Metric("accuracy", "maximize", COUNTS, _accuracy, "points"),
    "macro_f1": Metric("macro F1", "maximize", COUNTS, _macro_f1, "points"),
    "auroc": Metric("AUROC", "maximize", AREAS, _ratio),
    "mcc": Metric("MCC", "maximize", COUNTS, _mcc, bounds=(-1.0, 1.0)),
    "log_loss": Metric("log-loss", "minimize", LOSSES, _ratio, "nats", (0.0, float("inf"))),
    "calibration_error": Metric("calibration error", "minimize", BINS, _calibration_error),
}
