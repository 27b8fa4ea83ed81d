"""The one list of metrics, for training, confirmation and report: NumPy arrays in, floats out.

Predictions are probabilities (N, C) or class indices (N,); labels are class indices (N,) in 0..C-1.
A class that no label names cannot be scored: it is left out of every mean over classes, so a small
sample gives a number and never NaN. The numbers are scikit-learn's (tested), without its per-call cost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Direction = Literal["maximize", "minimize"]
Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Metric:
    """What a metric is called on the page, which way is better, and what it is computed from."""

    label: str
    direction: Direction
    needs_probabilities: bool
    is_objective: bool = True
    in_percent: bool = False  # how people read it: 83.1 % and points, or 0.831


METRICS: dict[str, Metric] = {
    "balanced_accuracy": Metric("balanced accuracy", "maximize", needs_probabilities=False, in_percent=True),
    "accuracy": Metric("accuracy", "maximize", needs_probabilities=False, in_percent=True),
    "macro_f1": Metric("macro F1", "maximize", needs_probabilities=False, in_percent=True),
    "auroc": Metric("AUROC", "maximize", needs_probabilities=True),
    "mcc": Metric("MCC", "maximize", needs_probabilities=False),
    "log_loss": Metric("log-loss", "minimize", needs_probabilities=True),
    "calibration_error": Metric("calibration error", "minimize", needs_probabilities=True, is_objective=False),
}


def direction(objective: str) -> Direction:
    """Which way `objective` gets better; KeyError where there is no such metric."""
    return METRICS[objective].direction


def sign_of(objective: str) -> Literal[1, -1]:
    """What makes a score one of which more is better: -1 where less is, else 1. KeyError as in `direction`."""
    return 1 if direction(objective) == "maximize" else -1


def confusion(predicted: ArrayLike, labels: ArrayLike, num_classes: int) -> Ints:
    """Counts (C, C): row = true class, column = predicted class."""
    predicted, labels = np.asarray(predicted, np.int64), np.asarray(labels, np.int64)
    counts = np.bincount(labels * num_classes + predicted, minlength=num_classes * num_classes)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


def score(objective: str, predictions: ArrayLike, labels: ArrayLike, num_classes: int | None = None) -> float:
    """One metric.

    Args:
        objective: a key of METRICS.
        predictions: probabilities (N, C), or class indices (N,) where the metric needs no more.
        labels: class indices (N,).
        num_classes: C, for class indices; one more than the largest index where it is missing.

    Raises:
        ValueError: an unknown metric, class indices for a metric of probabilities, shapes or indices that do
            not fit, no image, or a value that is not finite.
    """
    if objective not in METRICS:
        raise ValueError(f"objective must be one of {', '.join(METRICS)}, but got {objective!r}")
    predictions = np.asarray(predictions)
    if predictions.ndim == 2:
        probabilities, labels = _checked(predictions, labels)
        if METRICS[objective].needs_probabilities:
            return _OF_PROBABILITIES[objective](probabilities, labels)
        num_classes = probabilities.shape[1]
        predictions = probabilities.argmax(axis=1)
    elif METRICS[objective].needs_probabilities:
        raise ValueError(f"{objective} needs probabilities of shape (N, C), but got class indices {predictions.shape}")
    predictions, labels = np.asarray(predictions, np.int64), np.asarray(labels, np.int64)
    if predictions.shape != labels.shape or not labels.size:
        raise ValueError(f"need one prediction a label and at least one, but got {predictions.shape}, {labels.shape}")
    num_classes = num_classes or int(max(predictions.max(), labels.max())) + 1
    if min(predictions.min(), labels.min()) < 0 or max(predictions.max(), labels.max()) >= num_classes:
        raise ValueError(f"class indices must lie in 0..{num_classes - 1}")
    return _OF_COUNTS[objective](confusion(predictions, labels, num_classes))


def all_metrics(probabilities: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Every metric of METRICS, in its order, from probabilities (N, C); raises ValueError as `score` does."""
    probabilities, labels = _checked(np.asarray(probabilities), labels)
    counts = confusion(probabilities.argmax(axis=1), labels, probabilities.shape[1])
    return {
        name: _OF_PROBABILITIES[name](probabilities, labels) if metric.needs_probabilities else _OF_COUNTS[name](counts)
        for name, metric in METRICS.items()
    }


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


def _accuracy(counts: Ints) -> float:
    return float(np.trace(counts) / counts.sum())


def _balanced_accuracy(counts: Ints) -> float:
    """Mean recall over the classes that occur among the labels."""
    support = counts.sum(axis=1)
    present = support > 0
    return float((np.diag(counts)[present] / support[present]).mean())


def _macro_f1(counts: Ints) -> float:
    """Mean F1 over the classes that occur among labels or predictions."""
    total = counts.sum(axis=0) + counts.sum(axis=1)
    present = total > 0
    return float((2 * np.diag(counts)[present] / total[present]).mean())


def _mcc(counts: Ints) -> float:
    """Matthews correlation for many classes (Gorodkin 2004); 0 where one side holds a single class."""
    true, predicted = counts.sum(axis=1).astype(float), counts.sum(axis=0).astype(float)
    n = true.sum()
    spread = (n * n - predicted @ predicted) * (n * n - true @ true)
    return float((np.trace(counts) * n - true @ predicted) / np.sqrt(spread)) if spread > 0 else 0.0


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


def _ranks(values: Floats) -> NDArray[np.float64]:
    """From 1; equal values share the mean of theirs. (scipy.stats would be 0.9 s of every worker's start.)"""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def loss_of_each(probabilities: NDArray[Any], labels: Ints) -> NDArray[np.float64]:
    """Cross-entropy of each image in nats; a probability of zero counts as its type's epsilon (16 nats in float32)."""
    kind = probabilities.dtype if probabilities.dtype in (np.float32, np.float64) else np.dtype(np.float64)
    of_truth = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return -np.log(np.clip(of_truth, np.finfo(kind).eps, 1.0))


def calibration_bins(probabilities: NDArray[Any], labels: Ints) -> tuple[Ints, NDArray[np.float64]]:
    """Each image's bin of confidence, (k/15, (k+1)/15], and how far its answer (1 or 0) lies above its confidence."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
    return bins, right - confidence


def _log_loss(probabilities: Floats, labels: Ints) -> float:
    return float(loss_of_each(probabilities, labels).mean())


def _calibration_error(probabilities: Floats, labels: Ints) -> float:
    """Expected gap between confidence and accuracy over equal-width bins (Guo et al. 2017)."""
    bins, gap = calibration_bins(probabilities, labels)
    return float(np.abs(np.bincount(bins, weights=gap, minlength=CALIBRATION_BINS)).sum() / len(labels))


_OF_COUNTS: dict[str, Callable[[Ints], float]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "macro_f1": _macro_f1,
    "mcc": _mcc,
}
_OF_PROBABILITIES: dict[str, Callable[[Floats, Ints], float]] = {
    "auroc": _auroc,
    "log_loss": _log_loss,
    "calibration_error": _calibration_error,
}
