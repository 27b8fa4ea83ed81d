"""How sure a difference is: intervals that count the seeds and the test images (groups, where there are groups).

The model is a crossed one. A score on test varies with the seed (split, order, views, initialisation), with the
sampled test images, and with the two together: some images fall to one seed and not to another. Per seed the
variances are `of_seeds`, `of_images` and `of_both`, and the mean over S seeds on one test split has

    V = of_images + (of_seeds + of_both) / S

- The plain variance over the seeds, `observed`, estimates `of_seeds + of_both`, with S - 1 degrees of freedom.
- The jackknife over the test groups, of the mean over the seeds, estimates `of_images + of_both / S`. What the
  jackknife variance of single seeds has beyond that gives `of_both`.

The two parts of V are bounded each at its own t quantile and the half-widths added in squares:

    half² = t²(S - 1) · observed / S + t²(groups - 1) · of_images

and never narrower than the images alone say. ARCHITECTURE.md has the measurements behind this choice; `make
calibrate` simulates studies with a known truth and counts how often the interval holds it.

After: Cornfield and Tukey 1956 (crossed random effects); Graybill and Wang 1980, Zou and Donner 2008 (adding squared
half-widths); Efron and Stein 1981 (jackknife); Schuirmann 1987 (equivalence where the interval lies
within the zone); Bouthillier et al. 2021, arXiv 2103.03098 (count every source of variance, report the probability
of outperforming); Holm 1979.
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
from harness.results.metrics import METRICS, score, sign_of

Outcome = Literal["better", "worse", "equal", "undecided"]
Floats = NDArray[np.float64]

SEEDS_AT_MOST = 200  # `needed` looks no further
IMAGES_FACTOR_AT_MOST = 50
PROBABLE = 0.8  # the chance at which it names a number, as studies are planned by a power of 80 %


@dataclass(frozen=True)
class Needed:
    """What would probably decide, everything else as it was; None where that alone would not."""

    seeds: int | None
    test_images: int | None


@dataclass(frozen=True)
class Comparison:
    """b against a on the same seeds and test images; positive favours b for every objective."""

    difference: float
    ci95: tuple[float, float]
    probability_b_better: float  # on a new seed and a new test sample of the same size
    outcome: Outcome  # of b
    needed: Needed | None  # only where undecided


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, with the variance of one seed's score on one test sample, by source (see the module)."""

    mean: float
    seeds: int
    groups: int
    images: int
    of_images: float
    of_both: float
    observed: float  # plain variance over the seeds: of the seeds themselves, and of both

    def half_width(self, level: float = 0.95) -> float:
        """Half the interval at `level`."""
        return float(self.half_widths(level, self.seeds))

    def half_widths(self, level: float, seeds: ArrayLike, factor: ArrayLike = 1.0) -> Floats:
        """Half the interval as it would be with so many `seeds` and `factor` times the test images, which broadcast.

        The spread over the seeds is taken as it was seen: how much of it more images would take away, few seeds do
        not show.
        """
        seeds, factor = np.asarray(seeds, float), np.asarray(factor, float)
        t_seeds = stdtrit(seeds - 1, 0.5 + level / 2)
        t_images = stdtrit(np.maximum(np.floor(self.groups * factor + 1e-9) - 1, 1), 0.5 + level / 2)
        both_parts = t_seeds**2 * self.observed / seeds + t_images**2 * self.of_images / factor
        images_alone = t_images**2 * (self.of_images + self.of_both / seeds) / factor
        widths: Floats = np.sqrt(np.maximum(both_parts, images_alone))
        return widths

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Around the mean."""
        half = self.half_width(level)
        return self.mean - half, self.mean + half

    @property
    def p_value(self) -> float:
        """Two-sided, against a mean of zero: one minus the level at which the interval just reaches it."""
        if self.half_width() == 0:
            return 1.0 if self.mean == 0 else 0.0
        low, high = 1e-12, 1 - 1e-12
        if abs(self.mean) <= self.half_width(low):
            return 1.0
        if abs(self.mean) >= self.half_width(high):
            return 0.0
        return 1 - float(brentq(lambda level: self.half_width(level) - abs(self.mean), low, high))


def compare_strategies(
    predictions_a: ArrayLike,
    predictions_b: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    objective: str = "balanced_accuracy",
    equivalence: float = 0.01,
) -> Comparison:
    """Whether strategy b scores better than strategy a, paired by seed and by test image.

    Args:
        predictions_a: class indices (seeds, images), or probabilities (seeds, images, classes), which log-loss,
            AUROC and calibration error need. Row s of a and of b share a seed.
        predictions_b: the same shape.
        labels: class indices (images,).
        groups: one name an image (slide, patient); images of one group are drawn together. None: each by itself.
        objective: a key of METRICS.
        equivalence: differences within ± this count as practically equal.

    Returns:
        `outcome` speaks of b: `equal` where the whole interval lies within the equivalence zone, `better` or
        `worse` where it leaves zero out, `undecided` otherwise. Identical predictions give 0, [0, 0] and `equal`.

    Raises:
        ValueError: fewer than two seeds or images, shapes that do not fit, one group alone, labels or class indices
            that are no whole numbers, class indices where probabilities are needed, for log-loss and calibration error
            numbers that are no probabilities, or a zone below zero.
    """
    return judge(difference(predictions_a, predictions_b, labels, groups, objective), equivalence)


def difference(
    predictions_a: ArrayLike,
    predictions_b: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    objective: str = "balanced_accuracy",
) -> Estimate:
    """The estimate under `compare_strategies`: b minus a, its sign turned where the objective is minimized."""
    a, b = np.asarray(predictions_a), np.asarray(predictions_b)
    if a.shape[:2] != b.shape[:2]:
        raise ValueError(f"both sides need the same seeds and images, but got {a.shape} and {b.shape}")
    return _estimate([a, b], labels, groups, objective)


def estimate(
    predictions: ArrayLike, labels: ArrayLike, groups: ArrayLike | None = None, objective: str = "balanced_accuracy"
) -> Estimate:
    """The mean score of one strategy over its seeds, in the objective's own direction; arguments as there."""
    return _estimate([np.asarray(predictions)], labels, groups, objective)


def judge(found: Estimate, equivalence: float, level: float = 0.95) -> Comparison:
    """Read the outcome off the interval at `level`; `ci95` stays the 95 % interval. ValueError: a zone below zero."""
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
    """The confidence level at which each of several questions is read, after Holm 1979.

    The smallest p-value is held against (1 - level) / m, the next against (1 - level) / (m - 1), and so on;
    from the first that fails on, the level stays.
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
            _refuse_what_is_no_probability(side, objective)
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
    return Estimate(
        mean=float(values.mean()),
        seeds=seeds,
        groups=int(index.max()) + 1,
        images=labels.size,
        of_images=max(of_mean - of_both / seeds, 0.0),
        of_both=of_both,
        observed=observed,
    )


def _whole_numbers(values: ArrayLike, what: str) -> NDArray[np.int64]:
    """The values as int64, not rounded: ValueError where one is no whole number."""
    given = np.asarray(values)
    if given.dtype.kind in "iub":
        return given.astype(np.int64)
    if given.dtype.kind != "f" or not (given == np.floor(given)).all():  # NaN equals nothing
        raise ValueError(f"{what} must be class indices, whole numbers from 0, but some are not: {given.ravel()[:3]}")
    return given.astype(np.int64)


def _refuse_what_is_no_probability(side: NDArray[Any], objective: str) -> None:
    """Logits would give a number that means nothing; half precision may round a sum by a hundredth."""
    if side.ndim == 3 and np.isfinite(side).all():
        sums = side.sum(axis=2, dtype=np.float64)
        if side.min() < 0 or np.abs(sums - 1).max() > 0.01:
            raise ValueError(
                f"{objective} needs probabilities, from 0 and with the sum 1 for each image (a softmax's), but got "
                f"values from {side.min():.3g} and sums from {sums.min():.3g} to {sums.max():.3g}"
            )


def _probability(found: Estimate) -> float:
    """That b beats a on a new seed and a new test sample, the doubt about the mean included."""
    from_seeds = max(found.observed, found.of_both) * (1 + 1 / found.seeds)
    from_images = 2 * found.of_images
    spread = from_seeds + from_images
    if spread == 0:
        return float(np.sign(found.mean) / 2 + 0.5)
    freedom = spread**2 / (from_seeds**2 / (found.seeds - 1) + from_images**2 / max(found.groups - 1, 1))
    return float(stdtr(freedom, found.mean / np.sqrt(spread)))


def _needed(found: Estimate, equivalence: float, level: float) -> Needed:
    """Seeds alone, or test images alone, with which the interval leaves zero out or lies in the zone at PROBABLE.

    The difference that is seen now is all that is known. After n seeds, of which these are S, it lies around it with
    the variance of one seed times 1/S - 1/n: the old seeds stay, and the new ones need not agree with them. Likewise
    with the images.
    """
    seeds = np.arange(found.seeds + 1, SEEDS_AT_MOST + 1)
    moves = max(found.observed, found.of_both) * (1 / found.seeds - 1 / seeds)
    widths = found.half_widths(level, seeds)
    by_seeds = _decided(found.mean, moves, found.seeds - 1, widths, equivalence) >= PROBABLE

    factors = np.arange(1.1, IMAGES_FACTOR_AT_MOST, 0.1)
    moves = (found.of_images + found.of_both / found.seeds) * (1 - 1 / factors)
    widths = found.half_widths(level, found.seeds, factors)
    by_images = _decided(found.mean, moves, found.groups - 1, widths, equivalence) >= PROBABLE
    return Needed(
        int(seeds[by_seeds.argmax()]) if by_seeds.any() else None,
        int(float(f"{found.images * factors[by_images.argmax()]:.2g}")) if by_images.any() else None,
    )


def _decided(mean: float, moves: Floats, freedom: int, widths: Floats, equivalence: float) -> Floats:
    """The chance that a difference which will lie around `mean`, with the variances `moves`, is decided by intervals of
    ± `widths`: that it lies beyond them, or with them in the zone."""

    def below(edge: Floats) -> Floats:
        share: Floats = stdtr(freedom, (edge - mean) / np.sqrt(np.maximum(moves, np.finfo(float).tiny)))
        return share

    beyond = below(-widths) + 1 - below(widths)
    within = np.maximum(below(equivalence - widths) - below(widths - equivalence), 0)
    return np.where(2 * widths <= equivalence, 1.0, beyond + within)
