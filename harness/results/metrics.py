"""The table of all metrics, for training, confirmation and report: functions from NumPy arrays to floats.

Predictions are probabilities (N, C) or class indices (N,); labels are class indices (N,) in 0..C-1.
A class without any label cannot be scored: it is left out of every mean over classes, so that a small
sample gives a number and never NaN. The values equal scikit-learn's (tested), without its cost of each call.

Each metric is computed from sums over the images. `score` computes it from the sums over all images, the jackknife
(`harness.analysis.jackknife`) from the sums without one group of images. Both use the same formula.

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

    kinds: Floats  # (kinds, K): images that add the same numbers are one kind
    kind_of: Ints  # (N,)
    offset: float = 0.0  # added to the value, if the sums only give how the metric varies around it (AUROC)


@dataclass(frozen=True)
class Sums:
    """How images add up to the numbers that a metric is computed from.

    Both functions take predictions, labels (N,) and the number of classes. There are two because the sum over all
    images is faster, and rounded less often, if it is not added up from its parts.
    """

    total: Callable[[NDArray[Any], Ints, int], Floats]  # -> (K,), over all images
    parts: Callable[[NDArray[Any], Ints, int], Parts]
    predictions: Literal["classes", "scores", "probabilities"]  # what they need; scores may have any sum


@dataclass(frozen=True)
class Metric:
    """A metric: its label on the page, which direction is better, and the sums it is computed from."""

    label: str
    direction: Direction
    sums: Sums
    value: Callable[[Floats], Floats]  # sums (B, K) -> metric (B,)
    # The best that guessing gives without looking at the images: class shares (C,), all positive -> metric.
    guess: Callable[[Floats], float]
    unit: str = ""  # unit of differences; "points": the metric is shown in percent, as 83.1 %
    bounds: tuple[float, float] = (0.0, 1.0)  # the lowest and the highest possible value
    averages_classes: bool = False  # whether each class counts alike, however few images it has

    @property
    def sign(self) -> Literal[1, -1]:
        """The factor that turns a score into one for which higher is better."""
        return 1 if self.direction == "maximize" else -1

    @property
    def best(self) -> float:
        """The value of a perfect prediction."""
        return self.bounds[1] if self.direction == "maximize" else self.bounds[0]

    @property
    def in_percent(self) -> bool:
        return self.unit == "points"

    @property
    def needs_probabilities(self) -> bool:
        """Whether the metric cannot be computed from class indices."""
        return self.sums.predictions != "classes"


def direction(objective: str) -> Direction:
    """Return which direction of `objective` is better.

    Raises:
        KeyError: there is no such metric.
    """
    return METRICS[objective].direction


def sign_of(objective: str) -> Literal[1, -1]:
    """Return the factor, 1 or -1, that turns a score into one for which higher is better.

    Raises:
        KeyError: there is no such metric.
    """
    return METRICS[objective].sign


def confusion(predicted: ArrayLike, labels: ArrayLike, num_classes: int) -> Ints:
    """Return the confusion matrix (C, C) of counts: rows are true classes, columns are predicted classes."""
    predicted, labels = np.asarray(predicted, np.int64), np.asarray(labels, np.int64)
    counts = np.bincount(labels * num_classes + predicted, minlength=num_classes * num_classes)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


def score(objective: str, predictions: ArrayLike, labels: ArrayLike, num_classes: int | None = None) -> float:
    """Compute one metric.

    Args:
        objective: a key of METRICS.
        predictions: probabilities (N, C), or class indices (N,) if the metric needs no probabilities.
        labels: class indices (N,).
        num_classes: C, for class indices; if it is missing, one more than the largest index.

    Raises:
        ValueError: the metric is unknown, it needs probabilities and got class indices, shapes or indices do not fit,
            there is no image, or a value is not finite.
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
        raise ValueError(
            f"need one prediction for each label, at least one, but got {predictions.shape} and {labels.shape}"
        )
    num_classes = num_classes or int(max(predictions.max(), labels.max())) + 1
    if min(predictions.min(), labels.min()) < 0 or max(predictions.max(), labels.max()) >= num_classes:
        raise ValueError(f"class indices must lie in 0..{num_classes - 1}")
    return _of_all(metric, predictions, labels, num_classes)


def all_metrics(probabilities: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Compute every metric of METRICS, in its order, from probabilities (N, C).

    Raises:
        ValueError: as `score` does.
    """
    probabilities, labels = _checked(np.asarray(probabilities), labels)
    predicted, classes = probabilities.argmax(axis=1), probabilities.shape[1]
    sums = {
        of: of.total(predicted if of.predictions == "classes" else probabilities, labels, classes)
        for of in {metric.sums for metric in METRICS.values()}
    }
    return {name: float(metric.value(sums[metric.sums][None])[0]) for name, metric in METRICS.items()}


def parts_of(objective: str, prediction: NDArray[Any], labels: Ints, classes: int) -> Parts:
    """Return what each image adds to the sums of a metric; takes predictions of both forms and checks nothing."""
    metric = METRICS[objective]
    return metric.sums.parts(_as_needed(metric, prediction), labels, classes)


def _as_needed(metric: Metric, prediction: NDArray[Any]) -> NDArray[Any]:
    """Return class indices for a metric of counts, and the prediction unchanged for any other metric."""
    if metric.needs_probabilities:
        return prediction
    return prediction.argmax(axis=1) if prediction.ndim == 2 else prediction.astype(np.int64)


def _of_all(metric: Metric, prediction: NDArray[Any], labels: Ints, classes: int) -> float:
    """Compute a metric from the sums over all images."""
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
    """Make one kind for each pair of true and predicted class that occurs."""
    pairs, kind_of = np.unique(labels * classes + predicted, return_inverse=True)
    true, given = np.eye(classes)[pairs // classes], np.eye(classes)[pairs % classes]
    return Parts(np.concatenate([true * given, true, given], axis=1), kind_of)


def _accuracy(sums: Floats) -> Floats:
    right, true, _ = np.split(sums, 3, axis=1)
    share: Floats = right.sum(axis=1) / true.sum(axis=1)
    return share


def _balanced_accuracy(sums: Floats) -> Floats:
    """Compute the mean recall over the classes that occur among the labels."""
    right, true, _ = np.split(sums, 3, axis=1)
    return _mean_over_classes(right, true)


def _macro_f1(sums: Floats) -> Floats:
    """Compute the mean F1 over the classes that occur among labels or predictions."""
    right, true, predicted = np.split(sums, 3, axis=1)
    return _mean_over_classes(2 * right, true + predicted)


def _mean_over_classes(above: Floats, below: Floats) -> Floats:
    """Compute the mean (B,) of above / below over the classes for which `below` is positive."""
    if len(above) == 1:  # NumPy sums in pairs, so zeros between the classes would change the last bit of a score
        present = below[0] > 0
        above, below = above[:, present], below[:, present]
    ratio = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    mean: Floats = ratio.sum(axis=1) / (below > 0).sum(axis=1)
    return mean


def _mcc(sums: Floats) -> Floats:
    """Compute Matthews correlation for several classes; 0 if labels or predictions hold one class only.

    After Gorodkin 2004.
    """
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
    """Compute the cross-entropy (N,) of each image in nats.

    A probability of zero counts as the epsilon of its type, which gives 16 nats in float32.
    """
    kind = probabilities.dtype if probabilities.dtype in (np.float32, np.float64) else np.dtype(np.float64)
    of_truth = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return -np.log(np.clip(of_truth, np.finfo(kind).eps, 1.0))


def _loss_total(probabilities: NDArray[Any], labels: Ints, classes: int) -> Floats:
    return np.array([loss_of_each(probabilities, labels).sum(), len(labels)])


def _loss_parts(probabilities: NDArray[Any], labels: Ints, classes: int) -> Parts:
    n = len(labels)
    return Parts(np.stack([loss_of_each(probabilities, labels), np.ones(n)], axis=1), np.arange(n))


def _auroc_total(probabilities: NDArray[Any], labels: Ints, classes: int) -> Floats:
    """Return the exact area and a count of one, because AUROC cannot be computed from sums over images."""
    return np.array([_auroc(probabilities, labels), 1.0])


def _auroc_parts(prediction: NDArray[Any], labels: Ints, classes: int) -> Parts:
    """Return AUROC to first order: the influence of each image is its placement among the images of the other side.

    A jackknife replicate is then a sum as for the other metrics. After DeLong et al. 1988 and Obuchowski 1997
    (clustered images).
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
    """Compute the macro one-vs-rest area under the ROC curve by ranks; 0.5 if no class has images on both sides."""
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
    """Rank values from 1; equal values get their mean rank. (scipy.stats would add 0.9 s to every worker's start.)"""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


# Calibration error: for each bin the sum of (right - confidence), and the number of images.


def calibration_bins(probabilities: NDArray[Any], labels: Ints) -> tuple[Ints, Floats]:
    """Return each image's bin of confidence, (k/15, (k+1)/15], and its outcome (1 or 0) minus its confidence."""
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
    """Compute the expected gap between confidence and accuracy over bins of equal width (Guo et al. 2017)."""
    error: Floats = np.abs(sums[:, :-1]).sum(axis=1) / sums[:, -1]
    return error


COUNTS = Sums(_count_totals, _count_parts, "classes")
LOSSES = Sums(_loss_total, _loss_parts, "probabilities")
AREAS = Sums(_auroc_total, _auroc_parts, "scores")
BINS = Sums(_calibration_total, _calibration_parts, "probabilities")


def _guessed_macro_f1(shares: Floats) -> float:
    """Return the larger of: every image is the most frequent class; every class is named equally often."""
    one_class = 2 * shares.max() / (1 + shares.max()) / shares.size
    evenly = np.mean(2 * shares / (shares * shares.size + 1))
    return float(max(one_class, evenly))


def _entropy(shares: Floats) -> float:
    """Return the log-loss of an answer that gives each class its share."""
    return float(-(shares * np.log(shares)).sum())


METRICS: dict[str, Metric] = {
    "balanced_accuracy": Metric(
        "balanced accuracy",
        "maximize",
        COUNTS,
        _balanced_accuracy,
        guess=lambda shares: 1 / shares.size,
        unit="points",
        averages_classes=True,
    ),
    "accuracy": Metric("accuracy", "maximize", COUNTS, _accuracy, lambda shares: float(shares.max()), "points"),
    "macro_f1": Metric("macro F1", "maximize", COUNTS, _macro_f1, _guessed_macro_f1, "points", averages_classes=True),
    "auroc": Metric("AUROC", "maximize", AREAS, _ratio, lambda shares: 0.5, averages_classes=True),
    "mcc": Metric("MCC", "maximize", COUNTS, _mcc, lambda shares: 0.0, bounds=(-1.0, 1.0)),
    "log_loss": Metric("log-loss", "minimize", LOSSES, _ratio, _entropy, "nats", (0.0, float("inf"))),
    # An answer that gives each class its share is calibrated, so guessing cannot be told from knowing here.
    "calibration_error": Metric("calibration error", "minimize", BINS, _calibration_error, lambda shares: 0.0),
}


def guessing(objective: str, labels: ArrayLike) -> float:
    """Return the best value of a metric that guessing gives: the class shares of these labels (N,) are known."""
    counts = np.bincount(np.asarray(labels, np.int64))
    shares = counts[counts > 0] / counts.sum()
    return METRICS[objective].guess(shares)
