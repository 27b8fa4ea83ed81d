"""What the test images leave open where they all answer alike: the variance from a few imagined images.

If two strategies answer alike on all test images, the images show no variance, and yet the strategies may differ on the
next one. The fewer images there are, the less they rule out. So an interval counts imagined images beside the real ones
of each class:

- For a difference of two strategies, two images: on half of one only the one strategy is right, on another half only
  the other one, and on the remaining one both agree (Agresti and Min 2005).
- For one strategy's score, four images: two right answers and two wrong ones (Agresti and Coull 1998).

Images of one group (a slide, a patient) may all answer alike for the group's sake, so with groups each group counts as
one image. With n images in a class, two imagined ones add 1 / (n + 2)² to the variance of its mean, and four add 2 /
(n + 4)². The middle of the interval moves towards no difference, or towards the middle of the scale. Where images do
disagree, they show the variance themselves, and where they disagree often, imagined ones would only widen the
interval: after m disagreements (the mean over the seeds) the number of imagined images is divided by 1 + m.

An imagined image counts in the metric's own way. Classes are equal in balanced accuracy, macro F1 and AUROC, so each
class gets its own imagined images, and a class of two images leaves much open. In accuracy, MCC, log-loss and
calibration error all images count alike, so all classes together get them. One answer moves the mean by as much as
the metric's whole range: a recall from 0 to 1. Log-loss has no upper end; there the range is what an answer without
knowledge costs, ln(classes).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.results.metrics import METRICS

PAIRED, SINGLE = 2, 4  # imagined images for a difference, and for one score; half of them are squares of 1

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Unseen:
    """What imagined images add to an estimate."""

    variance: float
    kept: float  # share of the mean that remains beside the imagined images, in (0, 1]
    rest: float  # the value of the imagined images alone
    bounds: tuple[float, float]  # what the estimate can be

    def middle(self, mean: float) -> float:
        """Return the middle of the interval around a mean."""
        return self.kept * mean + (1 - self.kept) * self.rest


def unseen(
    objective: str, sides: Sequence[NDArray[Any]], labels: NDArray[np.int64], index: NDArray[np.int64], classes: int
) -> Unseen:
    """Return what these test images leave open.

    Args:
        objective: a key of METRICS.
        sides: one strategy's answers, or those of the two that are compared: class indices (S, N), or probabilities
            (S, N, C).
        labels: class indices (N,).
        index: group number of each image (N,), see `jackknife.group_index`.
        classes: C.
    """
    metric, paired = METRICS[objective], len(sides) > 1
    low, high = metric.bounds
    span = high - low if math.isfinite(high) else math.log(max(classes, 2))
    stratum = np.unique(labels, return_inverse=True)[1] if metric.averages_classes else np.zeros(labels.size, np.int64)
    cells, cell = np.unique(stratum * (index.max() + 1) + index, return_inverse=True)
    stratum_of = cells // (index.max() + 1)  # of each group's part of a class
    counts = np.bincount(stratum_of)
    imagined = (PAIRED if paired else SINGLE) / (1 + _disagreements(sides, labels, cell, stratum_of))
    weights = span / (counts.size * (counts + imagined))
    variance = float((weights**2 * imagined / 2).sum())
    kept = float((counts / (counts + imagined)).mean())
    if paired:
        return Unseen(variance, kept, 0.0, (low - high, high - low))
    if not math.isfinite(high):
        return Unseen(variance, 1.0, 0.0, (low, high))  # the scale has no middle
    return Unseen(variance, kept, (low + high) / 2, (low, high))


def _disagreements(
    sides: Sequence[NDArray[Any]], labels: NDArray[np.int64], cell: NDArray[np.int64], stratum_of: NDArray[np.int64]
) -> Floats:
    """Return the number of groups that disagree in each stratum, as a mean over the seeds.

    Two strategies disagree on an image if one of them alone is right. One strategy's answers disagree with each other
    if there are right and wrong ones: the smaller number of groups with either.

    Args:
        cell: (N,), the number of each image's group within its stratum, counted over all strata.
        stratum_of: (cells,), the stratum of each of these.
    """
    right = [(side.argmax(axis=2) if side.ndim == 3 else side) == labels for side in sides]

    def groups_with(answers: NDArray[np.bool_]) -> Floats:
        """Count the groups with one of these answers (S, N) or more: (S, strata)."""
        found = [np.bincount(cell, weights=one, minlength=stratum_of.size) > 0 for one in answers]
        return np.stack([np.bincount(stratum_of, weights=one) for one in found])

    if len(right) > 1:
        apart: Floats = groups_with(right[0] != right[1]).mean(axis=0)
        return apart
    fewest: Floats = np.minimum(groups_with(right[0]), groups_with(~right[0])).mean(axis=0)
    return fewest
