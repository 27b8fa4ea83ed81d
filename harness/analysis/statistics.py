"""Confidence intervals of scores and of differences, which count the seeds and the test images (or their groups).

The model has crossed random effects. A test score varies with the seed (split, order, views, initialisation), with
the sampled test images, and with both together: one seed gets some images right that another gets wrong. Per seed the
variances are `of_seeds`, `of_images` and `of_both`, and the mean over S seeds on one test split has

    V = of_images + (of_seeds + of_both) / S

- The plain variance over the seeds, `observed`, estimates `of_seeds + of_both`, with S - 1 degrees of freedom.
- The jackknife over the test groups, of the mean over the seeds, estimates `of_images + of_both / S`. The jackknife
  variance of single seeds is larger than that, and the difference gives `of_both`.

Each of the two parts of V is bounded at its own t quantile, and the squares of the half-widths are added:

    half² = t²(S - 1) · observed / S + t²(groups - 1) · of_images

The interval is never narrower than the one from the images alone. ARCHITECTURE.md has the measurements behind this
choice; `make calibrate` simulates studies with a known truth and counts how often the interval contains it.

Images that all answer alike show no variance, but a few of them cannot rule one out. So `of_unseen` is added to
`of_images`: the variance from imagined images, see `harness.analysis.unseen`. It also moves the middle of the interval
a little towards no difference. The interval ends where the metric ends.

After: Cornfield and Tukey 1956 (crossed random effects); Graybill and Wang 1980, Zou and Donner 2008 (adding squared
half-widths); Efron and Stein 1981 (jackknife); Agresti and Coull 1998, Agresti and Min 2005 (imagined images);
Schuirmann 1987 (equivalence if the interval lies within the zone); Bouthillier et al. 2021, arXiv 2103.03098 (count
every source of variance, report the probability of outperforming); Holm 1979.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import stdtr, stdtrit

from harness.analysis.jackknife import group_index, variance, without_each
from harness.analysis.unseen import unseen
from harness.results.metrics import METRICS, score, sign_of

Outcome = Literal["better", "worse", "equal", "undecided"]
Floats = NDArray[np.float64]

SEEDS_AT_MOST = 200  # the largest number of seeds that `needed` names
IMAGES_FACTOR_AT_MOST = 50  # the largest multiple of the test images that `needed` names
PROBABLE = 0.8  # the chance of a decision at which `needed` names a number: studies are planned with a power of 80 %


@dataclass(frozen=True)
class Needed:
    """How many seeds, or how many test images, would probably decide; None if more of them alone would not."""

    seeds: int | None
    test_images: int | None


@dataclass(frozen=True)
class Comparison:
    """Strategy b against strategy a on the same seeds and test images; positive favours b for every objective."""

    difference: float
    ci95: tuple[float, float]
    probability_b_better: float  # on a new seed and a new test sample of the same size
    outcome: Outcome  # of b
    needed: Needed | None  # None unless undecided


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, with the variances of one seed's score on one test sample (see the module's docstring)."""

    mean: float
    seeds: int
    groups: int
    images: int
    of_images: float
    of_both: float
    observed: float  # plain variance over the seeds, which estimates of_seeds + of_both
    of_unseen: float  # variance from imagined images, which falls with the square of the number of images
    middle: float  # of the interval
    bounds: tuple[float, float]  # what the score, or the difference of two, can be

    def half_width(self, level: float = 0.95) -> float:
        """Return half the width of the interval at `level`."""
        return float(self.half_widths(level, self.seeds))

    def half_widths(self, level: float, seeds: ArrayLike, factor: ArrayLike = 1.0) -> Floats:
        """Return half the width of the interval for other numbers of seeds and of test images.

        The spread over the seeds is taken as observed, although more test images would reduce a part of it: a few
        seeds do not show how large that part is.

        Args:
            level: confidence level in (0, 1).
            seeds: number of seeds, 2 or more.
            factor: the number of test images as a multiple of the present one; broadcasts with `seeds`.
        """
        seeds, factor = np.asarray(seeds, float), np.asarray(factor, float)
        t_seeds = stdtrit(seeds - 1, 0.5 + level / 2)
        t_images = stdtrit(np.maximum(np.floor(self.groups * factor + 1e-9) - 1, 1), 0.5 + level / 2)
        of_images = self.of_images / factor + self.of_unseen / factor**2
        both_parts = t_seeds**2 * self.observed / seeds + t_images**2 * of_images
        images_alone = t_images**2 * (of_images + self.of_both / seeds / factor)
        widths: Floats = np.sqrt(np.maximum(both_parts, images_alone))
        return widths

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the interval at `level`, within what the metric can be."""
        half, (lowest, highest) = self.half_width(level), self.bounds
        return max(self.middle - half, lowest), min(self.middle + half, highest)

    @property
    def p_value(self) -> float:
        """The two-sided p-value against a mean of zero: one minus the level at which the interval just reaches zero."""
        low, high = 1e-12, 1 - 1e-12
        if abs(self.middle) <= self.half_width(low):
            return 1.0
        if abs(self.middle) >= self.half_width(high):
            return 0.0
        return 1 - float(brentq(lambda level: self.half_width(level) - abs(self.middle), low, high))


def compare_strategies(
    predictions_a: ArrayLike,
    predictions_b: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    objective: str = "balanced_accuracy",
    equivalence: float = 0.01,
) -> Comparison:
    """Compare strategy b with strategy a, paired by seed and by test image.

    Args:
        predictions_a: class indices (seeds, images), or probabilities (seeds, images, classes), which log-loss,
            AUROC and calibration error need. Row s of a and of b share a seed.
        predictions_b: the same shape.
        labels: class indices (images,).
        groups: the group of each image (slide, patient); a group is sampled as a whole. None: each image is its own.
        objective: a key of METRICS.
        equivalence: differences within ± this count as practically equal.

    Returns:
        `outcome` is about b: `equal` if the whole interval lies within the equivalence zone, `better` or `worse` if
        it excludes zero, `undecided` otherwise. Identical predictions of few images are undecided: the interval is as
        wide as the images leave it open.

    Raises:
        ValueError: fewer than two seeds or images, shapes that do not fit, a single group, labels or class indices
            that are no whole numbers, class indices although the objective needs probabilities, numbers that are no
            probabilities (checked for log-loss and calibration error), or a negative equivalence.
    """
    return judge(difference(predictions_a, predictions_b, labels, groups, objective), equivalence)


def difference(
    predictions_a: ArrayLike,
    predictions_b: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    objective: str = "balanced_accuracy",
) -> Estimate:
    """Estimate b minus a; the sign is turned if the objective is minimized. Arguments as in `compare_strategies`."""
    a, b = np.asarray(predictions_a), np.asarray(predictions_b)
    if a.shape[:2] != b.shape[:2]:
        raise ValueError(f"both strategies need the same seeds and images, but got {a.shape} and {b.shape}")
    return _estimate([a, b], labels, groups, objective)


def estimate(
    predictions: ArrayLike, labels: ArrayLike, groups: ArrayLike | None = None, objective: str = "balanced_accuracy"
) -> Estimate:
    """Estimate one strategy's mean score, in the objective's own direction. Arguments as in `compare_strategies`."""
    return _estimate([np.asarray(predictions)], labels, groups, objective)


def judge(found: Estimate, equivalence: float, level: float = 0.95) -> Comparison:
    """Decide the outcome from the interval at `level`; `ci95` is always the 95 % interval.

    Raises:
        ValueError: a negative equivalence.
    """
    if not equivalence >= 0:
        raise ValueError(f"equivalence must be a difference of zero or more, but got {equivalence}")
    low, high = found.interval(level)
    outcome: Outcome = "undecided"
    if -equivalence <= low and high <= equivalence:
        outcome = "equal"
    elif low > 0 or high < 0:
        outcome = "better" if low > 0 else "worse"
    return Comparison(
        difference=found.mean,
        ci95=found.interval(),
        probability_b_better=_probability(found),
        outcome=outcome,
        needed=_needed(found, equivalence, level) if outcome == "undecided" else None,
    )


def holm_levels(p_values: Sequence[float], level: float = 0.95) -> list[float]:
    """Return the confidence level at which each of several comparisons is read, after Holm 1979.

    The smallest of m p-values is compared with (1 - level) / m, the next with (1 - level) / (m - 1), and so on. From
    the first p-value that is too large, the level stays the same.
    """
    alpha, m = 1 - level, len(p_values)
    levels, failed_at = [0.0] * m, None
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        share = failed_at or alpha / (m - rank)
        levels[index] = 1 - share
        if p_values[index] > share:
            failed_at = share
    return levels


def _estimate(sides: list[NDArray[Any]], labels: ArrayLike, groups: ArrayLike | None, objective: str) -> Estimate:
    """Estimate the score of one side, or the difference of two."""
    if objective not in METRICS:
        raise ValueError(f"objective must be one of {', '.join(METRICS)}, but got {objective!r}")
    labels = _whole_numbers(labels, "labels")
    for side in sides:
        if side.ndim not in (2, 3) or labels.shape != side.shape[1:2] or side.shape[0] < 2 or labels.size < 2:
            raise ValueError(
                "predictions must have the shape (seeds, images) or (seeds, images, classes) with two seeds and two "
                f"images or more, and one label an image, but got {side.shape} and labels of shape {labels.shape}"
            )
    sides = [_whole_numbers(side, "predictions") if side.ndim == 2 else side for side in sides]
    if METRICS[objective].sums.predictions == "probabilities":
        for side in sides:
            _check_probabilities(side, objective)
    classes = 1 + max(int(labels.max()), *(side.shape[2] - 1 if side.ndim == 3 else int(side.max()) for side in sides))
    index = group_index(groups, labels.size)
    sign = sign_of(objective) if len(sides) > 1 else 1

    seeds = sides[0].shape[0]
    scores = np.array([[score(objective, side[s], labels, classes) for s in range(seeds)] for side in sides])
    left_out = without_each(objective, [side[s] for side in sides for s in range(seeds)], labels, index, classes)
    left_out = left_out.reshape(-1, len(sides), seeds)
    values, left_out = (
        (scores[0], left_out[:, 0])
        if len(sides) == 1
        else (sign * (scores[1] - scores[0]), left_out[:, 1] - left_out[:, 0])
    )

    of_mean = float(variance(left_out.mean(axis=1)))
    of_one = float(variance(left_out).mean())
    of_both = max(of_one - of_mean, 0.0) * seeds / (seeds - 1)
    observed = float(values.var(ddof=1))
    mean = float(values.mean())
    imagined = unseen(objective, sides, labels, index, classes)
    return Estimate(
        mean=mean,
        seeds=seeds,
        groups=int(index.max()) + 1,
        images=labels.size,
        of_images=max(of_mean - of_both / seeds, 0.0),
        of_both=of_both,
        observed=observed,
        of_unseen=imagined.variance,
        middle=imagined.middle(mean),
        bounds=imagined.bounds,
    )


def _whole_numbers(values: ArrayLike, what: str) -> NDArray[np.int64]:
    """Return the values as int64 without rounding; ValueError if one is no whole number."""
    given = np.asarray(values)
    if given.dtype.kind in "iub":
        return given.astype(np.int64)
    if given.dtype.kind != "f" or not (given == np.floor(given)).all():  # NaN equals nothing
        raise ValueError(f"{what} must be class indices, whole numbers from 0, but some are not: {given.ravel()[:3]}")
    return given.astype(np.int64)


def _check_probabilities(side: NDArray[Any], objective: str) -> None:
    """Raise ValueError for logits, whose score would mean nothing. Half precision may round a sum by a hundredth."""
    if side.ndim == 3 and np.isfinite(side).all():
        sums = side.sum(axis=2, dtype=np.float64)
        if side.min() < 0 or np.abs(sums - 1).max() > 0.01:
            raise ValueError(
                f"{objective} needs probabilities (for each image 0 or more with the sum 1: apply a softmax), but got "
                f"values from {side.min():.3g} and sums from {sums.min():.3g} to {sums.max():.3g}"
            )


def _probability(found: Estimate) -> float:
    """Return the probability that b beats a on a new seed and a new test sample, with the mean itself uncertain."""
    from_seeds = max(found.observed, found.of_both) * (1 + 1 / found.seeds)
    from_images = 2 * (found.of_images + found.of_unseen)
    spread = from_seeds + from_images
    freedom = spread**2 / (from_seeds**2 / (found.seeds - 1) + from_images**2 / max(found.groups - 1, 1))
    return float(stdtr(freedom, found.mean / np.sqrt(spread)))


def _needed(found: Estimate, equivalence: float, level: float) -> Needed:
    """Return the number of seeds, or of test images, that decides with the chance PROBABLE.

    It decides if the interval excludes zero or lies in the equivalence zone. Nothing but the present difference is
    known: after n seeds, S of which are the present ones, the difference is distributed around it with the variance
    of one seed times 1/S - 1/n, since the present seeds stay and the new ones may differ. The same holds for images.
    """
    seeds = np.arange(found.seeds + 1, SEEDS_AT_MOST + 1)
    moves = max(found.observed, found.of_both) * (1 / found.seeds - 1 / seeds)
    widths = found.half_widths(level, seeds)
    by_seeds = _decided(found.mean, moves, found.seeds - 1, widths, equivalence) >= PROBABLE

    factors = np.arange(1.1, IMAGES_FACTOR_AT_MOST, 0.1)
    moves = (found.of_images + found.of_unseen + found.of_both / found.seeds) * (1 - 1 / factors)
    widths = found.half_widths(level, found.seeds, factors)
    by_images = _decided(found.mean, moves, found.groups - 1, widths, equivalence) >= PROBABLE
    return Needed(
        int(seeds[by_seeds.argmax()]) if by_seeds.any() else None,
        int(float(f"{found.images * factors[by_images.argmax()]:.2g}")) if by_images.any() else None,
    )


def _decided(mean: float, moves: Floats, freedom: int, widths: Floats, equivalence: float) -> Floats:
    """Return the chance that intervals of ± `widths` decide, for a difference around `mean` with variances `moves`.

    They decide if the difference lies beyond them, or if they lie in the equivalence zone.
    """

    def below(edge: Floats) -> Floats:
        share: Floats = stdtr(freedom, (edge - mean) / np.sqrt(np.maximum(moves, np.finfo(float).tiny)))
        return share

    beyond = below(-widths) + 1 - below(widths)
    within = np.maximum(below(equivalence - widths) - below(widths - equivalence), 0)
    return np.where(2 * widths <= equivalence, 1.0, beyond + within)
