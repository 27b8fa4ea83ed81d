"""Recall by class of both winners, and the classes in which they differ most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.analysis import wording
from harness.analysis.statistics import Estimate, difference, estimate
from harness.analysis.test_predictions import TestPredictions

_EACH_SIDE = 0.025  # of a 95 % interval
SHOWN = 20  # classes in the figure; the table has them all
_POINTS = "accuracy"  # recall reads as accuracy does: in percent and points
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Share:
    """A recall in [0, 1], or a difference of two in [-1, 1]: the mean over the seeds."""

    mean: float
    ci95: tuple[float, float] | None  # None where a single group shows nothing of how groups differ

    def told(self, signed: bool = False) -> str:
        """`83.1 % (79.0 to 87.2)`, or `+4.2 (0.3 to 8.1)`; without an interval a dash in brackets."""
        text = wording.difference(self.mean, _POINTS, signed) if signed else wording.level(self.mean, _POINTS)
        ends = " to ".join(wording.difference(end, _POINTS) for end in self.ci95) if self.ci95 else wording.DASH
        return f"{text} ({ends})"


@dataclass(frozen=True)
class ClassRecall:
    """One class on the test split, recognised by the winners a and b."""

    name: str
    images: int
    a: Share
    b: Share
    gain: Share  # b minus a
    p_value: float  # of the gain; 1 where it has no interval


def recalls(a: TestPredictions, b: TestPredictions, names: Sequence[str]) -> list[ClassRecall]:
    """Every class with a test image, the largest gain of b first.

    Args:
        a: shares two seeds or more, and its test images, with b.
        names: one for each class index.
    """
    seeds = sorted(set(a.seeds) & set(b.seeds))
    right = [(side.at(seeds).argmax(axis=2) == side.labels).astype(np.int64) for side in (a, b)]
    made = []
    for label, name in enumerate(names):
        rows = np.flatnonzero(a.labels == label)
        if rows.size:
            groups = None if a.groups is None else a.groups[rows]
            made.append(_recall(name, right[0][:, rows], right[1][:, rows], groups))
    return sorted(made, key=lambda found: found.gain.mean, reverse=True)


def most_apart(found: Sequence[ClassRecall]) -> list[ClassRecall]:
    """The classes for the figure, in the order given: those with the smallest p-values where there are too many."""
    ranked = sorted(found, key=lambda one: (one.p_value, -abs(one.gain.mean)))[:SHOWN]
    kept = {id(one) for one in ranked}
    return [one for one in found if id(one) in kept]


def _recall(name: str, a: Ints, b: Ints, groups: NDArray[np.str_] | None) -> ClassRecall:
    """From right (1) and wrong (0) answers (seeds, images of the class)."""
    images = a.shape[1]
    unit = np.arange(images) if groups is None else np.unique(groups, return_inverse=True)[1]
    units = int(unit.max()) + 1
    means = float(a.mean()), float(b.mean())
    if units < 2:
        alone = [Share(mean, None) for mean in (*means, means[1] - means[0])]
        return ClassRecall(name, images, alone[0], alone[1], alone[2], 1.0)
    truth = np.ones(images, np.int64)
    gain = difference(a, b, truth, groups, "accuracy")
    apart = np.count_nonzero(np.bincount(unit, weights=(b - a).sum(axis=0)))
    return ClassRecall(
        name,
        images,
        _share(estimate(a, truth, groups, "accuracy"), units, 0.0),
        _share(estimate(b, truth, groups, "accuracy"), units, 0.0),
        _share(gain, units, -1.0),
        max(gain.p_value, min(1.0, 2.0 ** (1 - apart))),
    )


def _share(found: Estimate, units: int, least: float) -> Share:
    """The estimate with its interval, within [least, 1]."""
    low, high = found.interval()
    if found.half_width() < 1e-9:
        unseen = 1 - _EACH_SIDE ** (1 / units)
        low, high = found.mean - unseen * (found.mean - least), found.mean + unseen * (1 - found.mean)
    return Share(found.mean, (max(low, least), min(high, 1.0)))
