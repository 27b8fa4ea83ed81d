"""Cross-entropy, with what a configuration asks of it: smoothing, weights of unequal classes, mixed labels."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from harness.config.trial import TrialConfig
from harness.training.mixing import Mixed


def class_weights(labels: NDArray[np.int64], num_classes: int) -> NDArray[np.float32]:
    """Weights of the classes, (C,): n / (C n_c), so that every class counts alike; 0 for one without images.

    Over the images of `labels` they are 1 on average.
    """
    counts = np.bincount(labels, minlength=num_classes)
    present = counts > 0
    weights = np.zeros(num_classes)
    weights[present] = len(labels) / (present.sum() * counts[present])
    return weights.astype(np.float32)


class Loss:
    """The training loss of a trial, in nats."""

    def __init__(self, config: TrialConfig, labels: NDArray[np.int64], num_classes: int, device: torch.device) -> None:
        """`labels` are those of the training part."""
        self._smoothing = config.label_smoothing
        self._weights: Tensor | None = None
        if config.imbalance == "weighted_loss":
            self._weights = torch.from_numpy(class_weights(labels, num_classes)).to(device)

    def __call__(self, logits: Tensor, labels: Tensor, mixed: Mixed | None = None) -> Tensor:
        """Mean over the batch: (B, C) logits and (B,) labels -> a scalar."""
        if mixed is None:
            return self._of(logits, labels)
        return mixed.share * self._of(logits, labels) + (1 - mixed.share) * self._of(logits, labels[mixed.partner])

    def part(self, logits: Tensor, labels: Tensor, mixed: Mixed | None, here: slice) -> Tensor:
        """What the images `here` add to the loss of their batch: over the parts of a batch it sums up to the whole's.

        Args:
            logits: of these images alone; `labels` and `mixed` are the whole batch's.
        """
        own = self._share(logits, labels, here)
        if mixed is None:
            return own
        return mixed.share * own + (1 - mixed.share) * self._share(logits, labels[mixed.partner], here)

    def _share(self, logits: Tensor, labels: Tensor, here: slice) -> Tensor:
        """The part's sum, over what divides the whole batch's."""
        whole = len(labels) if self._weights is None else self._weights[labels].sum()
        return self._of(logits, labels[here], "sum") / whole

    def _of(self, logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        return F.cross_entropy(
            logits, labels, weight=self._weights, label_smoothing=self._smoothing, reduction=reduction
        )
