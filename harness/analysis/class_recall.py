"""The recall of each class on the test split for two strategies' winners, with intervals.

The recall of a class is the accuracy on its images, so its interval is that of `statistics` over these images alone
(and the groups that hold them): if a class's images lie on three slides, it is as uncertain as three slides are. If
the answers differ in m groups, turning their signs gives 2^m arrangements, so no p-value is below 2^(1 - m).

After: Fisher 1935 (turned signs).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.analysis import wording
from harness.analysis.statistics import Estimate, difference, estimate
from harness.analysis.test_predictions import TestPredictions

SHOWN = 20  # classes in the figure; the table has all of them
SCALE = "accuracy"  # recall is written as accuracy is: in percent and points
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Recall:
    """A recall in [0, 1], or a difference of two in [-1, 1]: the mean over the seeds."""

    mean: float
    ci95: tuple[float, float] | None  # None for a single group, which does not show how groups differ

    def text(self, signed: bool = False) -> str:
        """Write the mean and its interval: `83.1 % (79.0 to 87.2)`, or `+4.2 (0.3 to 8.1)` if signed."""
        text = wording.difference(self.mean, SCALE, signed) if signed else wording.level(self.mean, SCALE)
        if self.ci95 is None:
            return f"{text} ({wording.DASH})"
        ends = "too few images" if wording.says_nothing(self.ci95, SCALE) else wording.interval(self.ci95, SCALE)
        return f"{text} ({ends})"


@dataclass(frozen=True)
class ClassRecall:
    """The recall of one class on the test split by the winners a and b, and their difference."""

    name: str
    images: int
    a: Recall
    b: Recall
    gain: Recall  # b minus a
    p_value: float  # of the gain; 1 if it has no interval


def recalls(a: TestPredictions, b: TestPredictions, names: Sequence[str]) -> list[ClassRecall]:
    """Return the recall of every class that has a test image, the largest gain of b first.

    Args:
        a, b: have two seeds or more and all test images in common.
        names: the name of each class index.
    """
    seeds = sorted(set(a.seeds) & set(b.seeds))
    right = [(side.at(seeds).argmax(axis=2) == side.labels).astype(np.int64) for side in (a, b)]
    found = []
    for label, name in enumerate(names):
        rows = np.flatnonzero(a.labels == label)
        if rows.size:
            groups = None if a.groups is None else a.groups[rows]
            found.append(_recall(name, right[0][:, rows], right[1][:, rows], groups))
    return sorted(found, key=lambda one: one.gain.mean, reverse=True)


def most_apart(found: Sequence[ClassRecall]) -> list[ClassRecall]:
    """Return the SHOWN classes with the smallest p-values, in the order given."""
    ranked = sorted(found, key=lambda one: (one.p_value, -abs(one.gain.mean)))[:SHOWN]
    kept = {id(one) for one in ranked}
    return [one for one in found if id(one) in kept]


def _recall(name: str, a: Ints, b: Ints, groups: NDArray[np.str_] | None) -> ClassRecall:
    """Compute a class's recall from right (1) and wrong (0) answers, (seeds, images of the class) each."""
    images = a.shape[1]
    unit = np.arange(images) if groups is None else np.unique(groups, return_inverse=True)[1]
    units = int(unit.max()) + 1
    means = float(a.mean()), float(b.mean())
    if units < 2:
        alone = [Recall(mean, None) for mean in (*means, means[1] - means[0])]
        return ClassRecall(name, images, alone[0], alone[1], alone[2], 1.0)
    truth = np.ones(images, np.int64)
    gain = difference(a, b, truth, groups, "accuracy")
    apart = np.count_nonzero(np.bincount(unit, weights=(b - a).sum(axis=0)))
    return ClassRecall(
        name,
        images,
        _recall_of(estimate(a, truth, groups, "accuracy")),
        _recall_of(estimate(b, truth, groups, "accuracy")),
        _recall_of(gain),
        max(gain.p_value, min(1.0, 2.0 ** (1 - apart))),
    )


def _recall_of(found: Estimate) -> Recall:
    return Recall(found.mean, found.interval())
