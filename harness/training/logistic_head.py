"""A linear head on frozen features, trained to the optimum: logistic regression, its L2 strength chosen on validation.

This is what the literature reports as a linear probe (VTAB, DINOv2). A few epochs of an optimizer reach it only if the
learning rate suits; here nothing is left to search. The head is the same linear layer as after training in steps: in
the checkpoint, in the contract of the freezing and in the exported model.

The strengths go from strong to weak, and of equal scores the stronger one is kept. Weak ones take most of the time, so
the path ends where the objective and the log-loss on validation no longer become better. The log-loss is asked as
well, because the strongest penalties may all answer with the most frequent class and score alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

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
from harness.training.logistic_path import Floats, LogisticPath
from harness.training.loss import class_weights

STRENGTHS = tuple(float(f"{10.0**power:.3g}") for power in np.arange(1, -6.5, -0.5))  # of the mean loss, strong to weak
PATIENCE = 2  # strengths in a row without a better score or a lower loss on validation, after which the path ends
FAR_BELOW = 20.0  # so much lower than the others is the logit of a class without a training image, in nats


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

    Without augmentation each image counts once; otherwise in the views of the first epochs, see `TrialConfig.passes`.

    Args:
        begin: prepares an epoch and returns its pipeline.
    """
    data, config = setup.data, setup.config
    if config.augmentation == "none" and config.imbalance != "balanced_sampling":
        return plain_features(model, begin(1), data.train, setup.pass_size), data.labels[data.train]
    found, labels = [], []
    model.train()
    for epoch in range(1, config.passes() + 1):
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
    if not (np.isfinite(features).all() and np.isfinite(validation).all()):
        raise DivergedError("the frozen features are not finite")
    present = np.unique(labels)
    if present.size < 2:
        raise DivergedError("a logistic regression needs training images of two classes or more, but got one")
    importance = (
        class_weights(labels, classes)[labels].astype(np.float64) if config.imbalance == "weighted_loss" else None
    )
    path = LogisticPath(features, np.searchsorted(present, labels), importance)
    chosen: Solved | None = None
    best, least, no_better = -np.inf, np.inf, 0
    for l2 in STRENGTHS:
        weight, bias = _of_all_classes(*path.at(l2), present, classes)
        answers = _softmax(validation @ weight.T + bias)
        value = sign_of(objective) * score(objective, answers, validation_labels)
        loss = score("log_loss", answers, validation_labels)
        no_better = 0 if chosen is None or value > best or loss < least else no_better + 1
        least = min(least, loss)
        if chosen is None or value > best:
            own = _softmax(features @ weight.T + bias)[np.arange(len(labels)), labels]
            best = value
            chosen = Solved(weight, bias, l2, float(-np.log(np.maximum(own, np.finfo(float).tiny)).mean()))
        if no_better == PATIENCE:
            break
    assert chosen is not None
    return chosen


def write(model: TransferModel, solved: Solved) -> None:
    """Set the weights of the model's linear head."""
    head = model.head.get_submodule("output") if isinstance(model.head, nn.Sequential) else model.head
    weight, bias = head.get_parameter("weight"), head.get_parameter("bias")
    with torch.no_grad():
        weight.copy_(torch.from_numpy(solved.weight).reshape(weight.shape))
        bias.copy_(torch.from_numpy(solved.bias))


def _of_all_classes(given: Floats, offsets: Floats, present: NDArray[np.int64], classes: int) -> tuple[Floats, Floats]:
    """Return weights (C, D) and biases (C,) of all classes, also of those without a training image."""
    weight = np.zeros((classes, given.shape[1]))
    bias = np.full(classes, offsets.min() - FAR_BELOW)
    weight[present], bias[present] = given, offsets
    return weight, bias


def _softmax(logits: Floats) -> Floats:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    share: Floats = shifted / shifted.sum(axis=1, keepdims=True)
    return share
