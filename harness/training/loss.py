"""The training loss: cross-entropy with label smoothing, class weights and mixed labels, as configured."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from harness.config.trial import TrialConfig
from harness.training.mixing import Mixed


def class_weights(labels: NDArray[np.int64], num_classes: int) -> NDArray[np.float32]:
    """Return the weights of the classes, (C,), with which every class has the same influence on the loss.

    The weight of a class is n / (C n_c), for n images, C classes that have images, and n_c images of the class; it is 0
    for a class without images. The mean weight over the images of `labels` is 1.
    """
    counts = np.bincount(labels, minlength=num_classes)
    present = counts > 0
    weights = np.zeros(num_classes)
    weights[present] = len(labels) / (present.sum() * counts[present])
    return weights.astype(np.float32)


class Loss:
    """The training loss of a trial, in nats."""

    def __init__(self, config: TrialConfig, labels: NDArray[np.int64], num_classes: int, device: torch.device) -> None:
        """Compute the class weights, if configured, from the `labels` of the training images."""
        self._smoothing = config.label_smoothing
        self._weights: Tensor | None = None
        if config.imbalance == "weighted_loss":
            self._weights = torch.from_numpy(class_weights(labels, num_classes)).to(device)

    def __call__(self, logits: Tensor, labels: Tensor, mixed: Mixed | None = None) -> Tensor:
        """Return the mean loss of a batch, a scalar, from logits (B, C) and labels (B,)."""
        if mixed is None:
            return self._of(logits, labels)
        return mixed.share * self._of(logits, labels) + (1 - mixed.share) * self._of(logits, labels[mixed.partner])

    def part(self, logits: Tensor, labels: Tensor, mixed: Mixed | None, span: slice) -> Tensor:
        """Return what the images `span` contribute to the mean loss of their batch.

        The contributions of all parts of a batch add up to the loss of the whole batch.

        Args:
            logits: of these images alone.
            labels, mixed: of the whole batch.
            span: places of these images in the batch.
        """
        own = self._share(logits, labels, span)
        if mixed is None:
            return own
        return mixed.share * own + (1 - mixed.share) * self._share(logits, labels[mixed.partner], span)

    def _share(self, logits: Tensor, labels: Tensor, span: slice) -> Tensor:
        """Return the sum of the part's losses divided by the whole batch's denominator."""
        denominator = len(labels) if self._weights is None else self._weights[labels].sum()
        return self._of(logits, labels[span], "sum") / denominator

    def _of(self, logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        return F.cross_entropy(
            logits, labels, weight=self._weights, label_smoothing=self._smoothing, reduction=reduction
        )
