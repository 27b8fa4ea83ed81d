"""Train one epoch, evaluate: plain loops in which every forward pass has one batch shape."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from harness.config.trial import TrialConfig
from harness.errors import HarnessError
from harness.model.transfer import TransferModel
from harness.training.inputs import TrialData, draw_views, epoch_order, padded
from harness.training.schedule import factor
from harness.training.seeds import derive


class DivergedError(HarnessError):
    """The loss or the scores are not finite any more; says at which epoch and step."""


class Normalise:
    """Subtract the mean and divide by the standard deviation of the weights, channel by channel."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> None:
        self._mean = torch.tensor(mean, device=device)[:, None, None]
        self._std = torch.tensor(std, device=device)[:, None, None]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) in [0, 1] -> the same shape, normalised."""
        return (images - self._mean) / self._std


def train_epoch(
    model: TransferModel,
    optimizer: torch.optim.Optimizer,
    data: TrialData,
    config: TrialConfig,
    *,
    epoch: int,
    seed: int,
    normalise: Normalise,
    device: torch.device,
    after_first_backward: Callable[[], None] = lambda: None,
) -> float:
    """One epoch of optimizer steps; returns the mean training loss in nats.

    Every group's rate is its `peak_lr` times the schedule's factor for the step of the whole trial.

    Raises:
        DivergedError: a loss is not finite.
    """
    order = epoch_order(data.train, derive(seed, "order"), epoch, config.batch_size)
    total_steps = len(order) * config.epochs
    losses: list[torch.Tensor] = []
    model.train()
    for index, rows in enumerate(order):
        rate = factor((epoch - 1) * len(order) + index, total_steps, config.warmup_fraction)
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * rate
        images = normalise(draw_views(data, config.augmentation, derive(seed, "views"), epoch, rows, device))
        labels = torch.from_numpy(data.labels[rows]).to(device)
        # Dropout and stochastic depth draw from here: the same for every trial at the same step.
        torch.manual_seed(derive(seed, "suffix", epoch, index))
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(images), labels, label_smoothing=config.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        if index == 0:
            after_first_backward()
        optimizer.step()
        losses.append(loss.detach())
        # On a CPU the number is at hand; on a GPU asking would wait for the device at every step.
        if device.type == "cpu" and not math.isfinite(loss.item()):
            break
    values = torch.stack(losses).cpu()
    bad = torch.nonzero(~torch.isfinite(values)).flatten()
    if len(bad):
        raise DivergedError(
            f"the training loss became {values[bad[0]].item()} in epoch {epoch}, step {int(bad[0]) + 1}"
        )
    return float(values.double().mean())


@torch.inference_mode()
def predict(
    model: TransferModel,
    data: TrialData,
    rows: NDArray[np.int64],
    batch_size: int,
    *,
    normalise: Normalise,
    device: torch.device,
) -> NDArray[np.float32]:
    """Class probabilities of un-augmented images, (len(rows), C); leaves the mode of the model as it was.

    Raises:
        DivergedError: an output is not finite (its score would still look valid: the share of class 0).
    """
    was_training = model.training
    model.eval()
    outputs = [
        model(normalise(data.batch(batch, device))).float().softmax(dim=1).cpu() for batch in padded(rows, batch_size)
    ]
    model.train(was_training)
    probabilities = torch.cat(outputs)[: len(rows)].numpy()
    if not np.isfinite(probabilities).all():
        raise DivergedError("the outputs on validation images are not finite")
    return probabilities
