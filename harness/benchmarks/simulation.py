"""Simulated confirmations whose true difference is known exactly, to hold `compare_strategies` against.

An image is answered rightly where a normal latent value is above zero: ability of the side for the image's class, plus
luck of the image, of the image with this side, of the group, of the group with this side, of the seed with this side,
and noise. All but the ability are drawn, so a class's expected recall is Phi(ability / sqrt(1 + their variances)) and
the expected balanced accuracy is its mean: no simulation is needed to know the truth.

After: the crossed random effects of Cornfield and Tukey 1956 on a probit scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr

MEAN_RECALL = 0.8  # of side a
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class World:
    """What confirmations are drawn from; the spreads are standard deviations on the latent scale, noise is 0.5."""

    shares: tuple[float, ...]  # of the classes
    ease: tuple[float, ...]  # of the classes, added to the ability
    seed: float  # luck of a seed with a side: 0.04 is about one point of accuracy
    image: float = 1.0
    image_by_side: float = 0.5
    group: float = 0.0
    group_by_side: float = 0.0
    noise: float = 0.5
    images_a_group: int = 0  # on average; 0: no groups

    @property
    def spread(self) -> float:
        """Standard deviation of everything drawn."""
        parts = (self.seed, self.image, self.image_by_side, self.group, self.group_by_side, self.noise)
        return float(np.sqrt(sum(part**2 for part in parts)))

    def balanced_accuracy(self, ability: float) -> float:
        """Expected over images, groups and seeds."""
        return float(np.mean(ndtr((ability + np.array(self.ease)) / self.spread)))

    def ability(self, balanced_accuracy: float) -> float:
        """The inverse of `balanced_accuracy`."""
        return float(brentq(lambda value: self.balanced_accuracy(value) - balanced_accuracy, -20, 20))


@dataclass(frozen=True)
class Confirmation:
    """What `compare_strategies` takes."""

    a: Ints  # (seeds, images)
    b: Ints
    labels: Ints
    groups: Ints | None


def labels_of(world: World, images: int) -> Ints:
    """As a stratified split has them: shares of `images`, at least one a class."""
    shares = np.array(world.shares) / sum(world.shares)
    edges = np.round(np.cumsum(shares) * (images - len(shares))).astype(np.int64)
    return np.repeat(np.arange(len(shares)), np.diff(edges, prepend=0) + 1)


def draw(world: World, seeds: int, images: int, truth: float, rng: np.random.Generator) -> Confirmation:
    """One confirmation in which side b's expected balanced accuracy is `truth` above side a's."""
    labels = labels_of(world, images)
    groups = None
    shared = world.image * rng.standard_normal(images)
    own = world.image_by_side * rng.standard_normal((2, 1, images))
    if world.images_a_group:
        count = max(10, images // world.images_a_group)
        groups = rng.permutation(np.concatenate([np.arange(count), rng.integers(0, count, images - count)]))
        shared += world.group * rng.standard_normal(count)[groups]
        own += world.group_by_side * rng.standard_normal((2, 1, count))[:, :, groups]
    own = own + world.seed * rng.standard_normal((2, seeds, 1)) + world.noise * rng.standard_normal((2, seeds, images))
    abilities = np.array([world.ability(MEAN_RECALL), world.ability(MEAN_RECALL + truth)])
    right = abilities[:, None, None] + np.array(world.ease)[labels] + shared + own > 0
    wrong = (labels + rng.integers(1, len(world.shares), right.shape)) % len(world.shares)
    a, b = np.where(right, labels, wrong)
    return Confirmation(a, b, labels, groups)
