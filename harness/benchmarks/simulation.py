"""Simulated confirmations whose true difference is known exactly, to test `compare_strategies`.

An image is classified correctly if a normal latent value is above zero. The value is the side's ability for the image's
class plus random effects of the image, of image and side, of the group, of group and side, and of seed and side, plus
noise. So the expected recall of a class is Phi((ability + ease) / spread), where spread is the standard deviation of
all random terms together, and the expected balanced accuracy is the mean recall, known without simulation.

After: the crossed random effects of Cornfield and Tukey 1956 on a probit scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Population:
    """The distribution of simulated confirmations; the effects are standard deviations on the latent scale."""

    shares: tuple[float, ...]  # relative sizes of the classes
    ease: tuple[float, ...]  # of each class, added to the ability
    seed: float  # effect of seed and side: 0.04 is about one point of accuracy
    image: float = 1.0
    image_by_side: float = 0.5
    group: float = 0.0
    group_by_side: float = 0.0
    noise: float = 0.5
    images_a_group: int = 0  # mean number of images in a group; 0: no groups
    recall: float = 0.8  # expected balanced accuracy of side a

    @property
    def spread(self) -> float:
        """Standard deviation of all random terms together."""
        parts = (self.seed, self.image, self.image_by_side, self.group, self.group_by_side, self.noise)
        return float(np.sqrt(sum(part**2 for part in parts)))

    def balanced_accuracy(self, ability: float) -> float:
        """Return the expected balanced accuracy of a side with this ability, over images, groups and seeds."""
        return float(np.mean(ndtr((ability + np.array(self.ease)) / self.spread)))

    def ability(self, balanced_accuracy: float) -> float:
        """Return the ability that gives this balanced accuracy: the inverse of `balanced_accuracy`."""
        return float(brentq(lambda value: self.balanced_accuracy(value) - balanced_accuracy, -20, 20))


@dataclass(frozen=True)
class Confirmation:
    """One simulated confirmation: the arguments of `compare_strategies`."""

    a: Ints  # class indices, (seeds, images)
    b: Ints
    labels: Ints
    groups: Ints | None


def labels_of(population: Population, images: int) -> Ints:
    """Return labels (images,) as in a stratified split, with at least one image of each class."""
    shares = np.array(population.shares) / sum(population.shares)
    edges = np.round(np.cumsum(shares) * (images - len(shares))).astype(np.int64)
    return np.repeat(np.arange(len(shares)), np.diff(edges, prepend=0) + 1)


def draw(population: Population, seeds: int, images: int, truth: float, rng: np.random.Generator) -> Confirmation:
    """Draw a confirmation in which the expected balanced accuracy of b is `truth` above that of a."""
    labels = labels_of(population, images)
    groups = None
    shared = population.image * rng.standard_normal(images)
    own = population.image_by_side * rng.standard_normal((2, 1, images))
    if population.images_a_group:
        count = min(max(10, images // population.images_a_group), images)
        groups = rng.permutation(np.concatenate([np.arange(count), rng.integers(0, count, images - count)]))
        shared += population.group * rng.standard_normal(count)[groups]
        own += population.group_by_side * rng.standard_normal((2, 1, count))[:, :, groups]
    own = (
        own
        + population.seed * rng.standard_normal((2, seeds, 1))
        + population.noise * rng.standard_normal((2, seeds, images))
    )
    abilities = np.array([population.ability(population.recall), population.ability(population.recall + truth)])
    right = abilities[:, None, None] + np.array(population.ease)[labels] + shared + own > 0
    wrong = (labels + rng.integers(1, len(population.shares), right.shape)) % len(population.shares)
    a, b = np.where(right, labels, wrong)
    return Confirmation(a, b, labels, groups)
