"""Nearest neighbours on the frozen features of a backbone: a reference that trains nothing.

An image is answered by the training images whose features point in the most similar direction. A neighbour of cosine
similarity s votes for its class with the weight exp(s / TEMPERATURE) (Wu et al. 2018, as DINO does), relative to the
nearest one, and one more vote is spread evenly over the classes, so that no class gets a probability of zero. How many
neighbours vote is chosen on the validation images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from harness.config.initial_weights import DEFAULT
from harness.config.trial import TrialConfig, canonical
from harness.errors import DivergedError
from harness.results.metrics import score, sign_of

NUMBERS = (1, 3, 5, 10, 20, 50, 100)
TEMPERATURE = 0.07
QUERIES = 1024  # images whose similarities to all training images are in memory at once


@dataclass(frozen=True)
class Neighbours:
    """The answers of the nearest neighbours with one split."""

    number: int  # of neighbours that vote
    validation_score: float
    probabilities: NDArray[np.float32]  # (rows, C)


def reference_config(backbone: str, batch_size: int, weights: str = DEFAULT) -> TrialConfig:
    """Return the configuration whose frozen features are used; its head is never asked for an answer."""
    return canonical(TrialConfig("feature_extraction", backbone, 0, 1e-3, None, weights=weights, batch_size=batch_size))


def answer(
    train: NDArray[np.float32],
    labels: NDArray[np.int64],
    validation: NDArray[np.float32],
    validation_labels: NDArray[np.int64],
    asked: NDArray[np.float32],
    classes: int,
    objective: str,
) -> Neighbours:
    """Answer the images that are asked for, with the number of neighbours that is best on the validation images.

    Of numbers with equal scores, the smallest is used.

    Args:
        train: features of the training images (N, D); `labels` is (N,).
        validation: features of the validation images (V, D); `validation_labels` is (V,).
        asked: features of the images to answer (rows, D).

    Raises:
        DivergedError: a feature is not finite.
    """
    if not all(np.isfinite(features).all() for features in (train, validation, asked)):
        raise DivergedError("the frozen features are not finite")
    numbers = [number for number in NUMBERS if number <= len(train)]
    tried = votes(train, labels, validation, classes, numbers)
    scores = [score(objective, probabilities, validation_labels) for probabilities in tried]
    best = int(np.argmax(sign_of(objective) * np.array(scores)))
    (probabilities,) = votes(train, labels, asked, classes, numbers[best : best + 1])
    return Neighbours(numbers[best], scores[best], probabilities)


def votes(
    train: NDArray[np.float32],
    labels: NDArray[np.int64],
    asked: NDArray[np.float32],
    classes: int,
    numbers: Sequence[int],
) -> list[NDArray[np.float32]]:
    """Return the class probabilities (rows, C) by each number of neighbours."""
    known, truth = _directions(train), torch.from_numpy(labels)
    found: list[list[torch.Tensor]] = [[] for _ in numbers]
    for part in torch.split(_directions(asked), QUERIES):
        similarity, nearest = (part @ known.T).topk(max(numbers), dim=1)
        weights = ((similarity - similarity[:, :1]) / TEMPERATURE).exp()
        for each, number in zip(found, numbers, strict=True):
            share = torch.full((len(part), classes), 1 / classes)
            share.scatter_add_(1, truth[nearest[:, :number]], weights[:, :number])
            each.append(share / share.sum(dim=1, keepdim=True))
    return [torch.cat(each).numpy() for each in found]


def _directions(features: NDArray[np.float32]) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(features), dim=1)
