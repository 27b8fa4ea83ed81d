"""Nearest neighbours on features: scikit-learn finds the same ones, and validation chooses how many vote."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from harness.errors import DivergedError
from harness.results.metrics import score
from harness.training.neighbours import NUMBERS, QUERIES, TEMPERATURE, answer, votes


def drawn(images: int, noise: float, seed: int = 0, classes: int = 4) -> tuple[Any, Any]:
    """Features of classes that lie in different directions, of very different lengths."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, 16))
    labels = rng.permutation(np.arange(images) % classes)
    features = (centres[labels] + noise * rng.normal(size=(images, 16))) * rng.uniform(0.01, 100, (images, 1))
    return features.astype(np.float32), labels.astype(np.int64)


@pytest.mark.parametrize("number", [1, 5, 20])
def test_scikit_learn_gives_the_same_votes(number: int) -> None:
    train, labels = drawn(200, 1.0)
    asked, _ = drawn(QUERIES + 80, 1.0, seed=1)  # more than are looked up at once
    known = KNeighborsClassifier(number, metric="cosine").fit(train, labels)
    distances, nearest = known.kneighbors(asked)
    weights = np.exp((distances[:, :1] - distances) / TEMPERATURE)
    expected = np.full((len(asked), 4), 1 / 4)
    for row, (weight, near) in enumerate(zip(weights, nearest, strict=True)):
        np.add.at(expected[row], labels[near], weight)
    (found,) = votes(train, labels, asked, 4, [number])
    assert found == pytest.approx(expected / expected.sum(axis=1, keepdims=True), abs=1e-4)
    assert found.min() > 0


@pytest.mark.parametrize("objective", ["balanced_accuracy", "log_loss"])
def test_the_number_of_neighbours_is_the_best_on_validation(objective: str) -> None:
    train, labels = drawn(300, 2.5)
    validation, truth = drawn(200, 2.5, seed=1)
    asked, _ = drawn(50, 2.5, seed=2)
    found = answer(train, labels, validation, truth, asked, 4, objective)
    scores = [score(objective, each, truth) for each in votes(train, labels, validation, 4, NUMBERS)]
    best = min(scores) if objective == "log_loss" else max(scores)
    assert found.validation_score == best
    assert found.number == NUMBERS[scores.index(best)] > 1  # the classes overlap, so one neighbour is too few
    (probabilities,) = votes(train, labels, asked, 4, [found.number])
    assert np.array_equal(found.probabilities, probabilities)


def test_of_equally_good_numbers_the_smallest_is_used() -> None:
    train, labels = drawn(60, 0.0)
    found = answer(train, labels, *drawn(20, 0.0, seed=1), train, 4, "accuracy")
    assert (found.number, found.validation_score) == (1, 1.0)
    assert np.array_equal(found.probabilities.argmax(axis=1), labels)


def test_no_more_neighbours_vote_than_there_are_training_images() -> None:
    train, labels = drawn(8, 2.0)
    assert answer(train, labels, *drawn(40, 2.0, seed=1), train, 4, "log_loss").number <= 8


def test_features_that_are_not_finite_diverge() -> None:
    train, labels = drawn(20, 1.0)
    broken = train.copy()
    broken[3, 2] = np.nan
    with pytest.raises(DivergedError, match="not finite"):
        answer(train, labels, train, labels, broken, 4, "accuracy")
