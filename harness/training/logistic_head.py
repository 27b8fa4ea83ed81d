"""A linear head on frozen features, trained to the optimum: logistic regression, its L2 strength chosen on validation.

This is what the literature reports as a linear probe (VTAB, DINOv2). A few epochs of an optimizer reach it only if the
learning rate suits; here nothing is left to search. The features are standardised for the solver, and its weights are
converted back, so that the head is the same linear layer as after training in steps: in the checkpoint, in the
contract of the freezing and in the exported model.

The strengths go from strong to weak, each start being the optimum before, and of equal scores the stronger one is kept.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from harness.config.trial import TrialConfig
from harness.errors import DivergedError
from harness.model.transfer import TransferModel
from harness.results.metrics import score, sign_of
from harness.training import loop
from harness.training.frozen_features.input_pipeline import InputPipeline
from harness.training.head_inputs import head_inputs
from harness.training.loss import class_weights

STRENGTHS = tuple(float(f"{10.0**power:.3g}") for power in np.arange(1, -6.5, -0.5))  # of the mean loss, strong to weak
VIEWS = 8  # most epochs whose views are used: the recipe `flips` has no more
ITERATIONS = 1000
FAR_BELOW = 20.0  # so much lower than the others is the logit of a class without a training image, in nats

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Solved:
    """The optimum at the chosen strength."""

    weight: Floats  # (C, D)
    bias: Floats  # (C,)
    l2: float
    train_loss: float  # mean over the training features, without the penalty, in nats


def train_features(
    model: TransferModel, setup: loop.TrainingSetup, begin: Callable[[int], InputPipeline]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the head's inputs (N, D) for the training images and their labels (N,).

    Without augmentation each image counts once; otherwise in the views of the first VIEWS epochs.

    Args:
        begin: prepares an epoch and returns its pipeline.
    """
    data, config = setup.data, setup.config
    if config.augmentation == "none" and config.imbalance != "balanced_sampling":
        return plain_features(model, begin(1), data.train, setup.pass_size), data.labels[data.train]
    found, labels = [], []
    model.train()
    for epoch in range(1, min(config.epochs, VIEWS) + 1):
        pipeline = begin(epoch)
        order, occurrence = loop.epoch_rows(setup, epoch)
        for step, rows in enumerate(order):
            inputs, _ = pipeline.inputs(epoch, step, rows, occurrence[step])
            with torch.no_grad():
                for first in range(0, len(rows), setup.pass_size):
                    part = inputs[first : first + setup.pass_size]
                    found.append(head_inputs(model, partial(pipeline.logits, model, part)))
            labels.append(data.labels[rows])
    return np.concatenate(found), np.concatenate(labels)


def plain_features(
    model: TransferModel, pipeline: InputPipeline, rows: NDArray[np.int64], batch_size: int
) -> NDArray[np.float32]:
    """Return the head's inputs (len(rows), D) for images that are not augmented."""
    evaluate = partial(pipeline.evaluate, model)
    return head_inputs(model, partial(loop.predict, model, evaluate, rows, batch_size))[: len(rows)]


def solve(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    validation: NDArray[np.float32],
    validation_labels: NDArray[np.int64],
    config: TrialConfig,
    classes: int,
    objective: str,
) -> Solved:
    """Return the optimum at the strength that is best on the validation features.

    Args:
        features: of the training images, (N, D); `labels` is (N,).
        validation: of the validation images, (V, D); `validation_labels` is (V,).

    Raises:
        DivergedError: a feature is not finite, or the training images are all of one class.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if not (np.isfinite(features).all() and np.isfinite(validation).all()):
        raise DivergedError("the frozen features are not finite")
    present = np.unique(labels)
    if present.size < 2:
        raise DivergedError("a logistic regression needs training images of two classes or more, but got one")
    mean, spread = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    spread[spread < 1e-12] = 1.0  # a constant feature says nothing
    scaled = (features - mean) / spread
    importance = class_weights(labels, classes)[labels] if config.imbalance == "weighted_loss" else None
    solver = LogisticRegression(tol=1e-6, max_iter=ITERATIONS, warm_start=True)
    best: tuple[float, Solved] | None = None
    for l2 in STRENGTHS:
        solver.C = 1 / (l2 * len(labels))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a point near the optimum is judged like any other
            solver.fit(scaled, labels, sample_weight=importance)
        weight, bias = _of_all_classes(solver, present, classes)
        weight = weight / spread
        bias = bias - weight @ mean
        value = sign_of(objective) * score(objective, _softmax(validation @ weight.T + bias), validation_labels)
        if best is None or value > best[0]:
            chosen = _softmax(features @ weight.T + bias)[np.arange(len(labels)), labels]
            loss = float(-np.log(np.maximum(chosen, np.finfo(float).tiny)).mean())
            best = value, Solved(weight, bias, l2, loss)
    assert best is not None
    return best[1]


def write(model: TransferModel, solved: Solved) -> None:
    """Set the weights of the model's linear head."""
    head = model.head.get_submodule("output") if isinstance(model.head, nn.Sequential) else model.head
    weight, bias = head.get_parameter("weight"), head.get_parameter("bias")
    with torch.no_grad():
        weight.copy_(torch.from_numpy(solved.weight).reshape(weight.shape))
        bias.copy_(torch.from_numpy(solved.bias))


def _of_all_classes(solver: Any, present: NDArray[np.int64], classes: int) -> tuple[Floats, Floats]:
    """Return weights (C, D) and biases (C,) of all classes, also of two, and of those without a training image."""
    given, offsets = solver.coef_.astype(np.float64), solver.intercept_.astype(np.float64)
    if present.size == 2:  # of two classes the solver gives the difference
        given, offsets = np.concatenate([-given, given]) / 2, np.concatenate([-offsets, offsets]) / 2
    weight = np.zeros((classes, given.shape[1]))
    bias = np.full(classes, offsets.min() - FAR_BELOW)
    weight[present], bias[present] = given, offsets
    return weight, bias


def _softmax(logits: Floats) -> Floats:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    share: Floats = shifted / shifted.sum(axis=1, keepdims=True)
    return share
