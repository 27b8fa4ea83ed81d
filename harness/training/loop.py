"""The training loop of one epoch, and prediction.

Every forward pass has the same batch shape, because several backbones are not bit-equal across batch shapes. Only if
memory is short, a batch is divided into micro-batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from harness.config.trial import Shift, TrialConfig
from harness.data.corruptions import shifted
from harness.errors import DivergedError
from harness.model.transfer import TransferModel
from harness.seeds import derive
from harness.training.frozen_features.input_pipeline import InputPipeline, Normalise
from harness.training.loss import Loss
from harness.training.mixing import Mixed
from harness.training.optimizers import lr_factor
from harness.training.out_of_memory import split_batch
from harness.training.trial_data import TrialData, balanced_order, epoch_order, padded


@dataclass(frozen=True)
class TrainingSetup:
    """What stays the same in all epochs of a trial."""

    data: TrialData
    config: TrialConfig
    seed: int
    loss: Loss
    device: torch.device
    micro_batch: int | None = None  # images in one forward pass, if memory does not hold a whole batch

    @property
    def pass_size(self) -> int:
        """Number of images in one forward pass."""
        return self.micro_batch or self.config.batch_size


def train_epoch(
    model: TransferModel,
    optimizer: torch.optim.Optimizer,
    setup: TrainingSetup,
    pipeline: InputPipeline,
    epoch: int,
    *,
    after_first_backward: Callable[[], None] = lambda: None,
    after_step: Callable[[], None] = lambda: None,
) -> float:
    """Train for one epoch and return the mean training loss in nats. Call `pipeline.begin` first.

    The learning rate of each parameter group is its `peak_lr` times the schedule's factor for the current step, which
    is counted over the whole trial.

    Args:
        epoch: counted from 1.
        after_first_backward: called once, after the backward pass of the first step.
        after_step: called after every optimizer step.

    Raises:
        DivergedError: a loss is not finite.
    """
    data, config, device = setup.data, setup.config, setup.device
    order, occurrence = epoch_rows(setup, epoch)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    losses: list[torch.Tensor] = []
    model.train()
    for index, rows in enumerate(order):
        rate = lr_factor((epoch - 1) * len(order) + index, len(order) * config.epochs, config.warmup_fraction)
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * rate
        labels = torch.from_numpy(data.labels[rows]).to(device)
        # Dropout and stochastic depth draw from this generator: the same numbers in every trial at the same step.
        _reseed(derive(setup.seed, "suffix", epoch, index), device)
        optimizer.zero_grad(set_to_none=True)
        inputs, mixed = pipeline.inputs(epoch, index, rows, occurrence[index])
        loss = _backward(model, setup, pipeline, inputs, labels, mixed)
        if index == 0:
            after_first_backward()
        if config.gradient_clip > 0:
            torch.nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
        optimizer.step()
        after_step()
        losses.append(loss)
        # On a CPU the value is available at once. On a GPU, reading it would wait for the device at every step.
        if device.type == "cpu" and not math.isfinite(loss.item()):
            break
    values = torch.stack(losses).cpu()
    bad = torch.nonzero(~torch.isfinite(values)).flatten()
    if len(bad):
        raise DivergedError(
            f"the training loss became {values[bad[0]].item()} in epoch {epoch}, step {int(bad[0]) + 1}"
        )
    return float(values.double().mean())


def _backward(
    model: TransferModel,
    setup: TrainingSetup,
    pipeline: InputPipeline,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    mixed: Mixed | None,
) -> torch.Tensor:
    """Compute the gradients of a batch's mean loss, in micro-batches if the setup says so, and return the loss."""
    if setup.micro_batch is None:
        loss = setup.loss(pipeline.logits(model, inputs).float(), labels, mixed)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()
    total = torch.zeros((), device=setup.device)
    for span in split_batch(len(labels), setup.micro_batch):
        loss = setup.loss.part(pipeline.logits(model, inputs[span]).float(), labels, mixed, span)
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    return total


def epoch_rows(setup: TrainingSetup, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of an epoch in training order, and how often each occurred before in this epoch.

    Both arrays are (steps, batch_size).
    """
    data, config, seed = setup.data, setup.config, derive(setup.seed, "order")
    if config.imbalance == "balanced_sampling":
        return balanced_order(data.train, data.labels, seed, epoch, config.batch_size)
    order = epoch_order(data.train, seed, epoch, config.batch_size)
    return order, np.zeros_like(order)


def predict_images(
    model: TransferModel,
    data: TrialData,
    rows: NDArray[np.int64],
    batch_size: int,
    device: torch.device,
    shift: Shift | None = None,
) -> NDArray[np.float32]:
    """Return class probabilities as `predict` does, from the images or, with `shift`, from shifted copies of them."""
    normalise = Normalise(model.mean, model.std, device)

    def logits(batch: NDArray[np.int64]) -> torch.Tensor:
        images = data.batch(batch, device)
        changed = images if shift is None else shifted(shift, images, data.keys[batch])
        out: torch.Tensor = model(normalise(changed))
        return out

    return predict(model, logits, rows, batch_size)


@torch.inference_mode()
def predict(
    model: TransferModel, logits: Callable[[NDArray[np.int64]], torch.Tensor], rows: NDArray[np.int64], batch_size: int
) -> NDArray[np.float32]:
    """Return the class probabilities (len(rows), C) of images that are not augmented.

    The train or eval mode of the model is restored afterwards.

    Args:
        logits: function from `batch_size` rows to their logits (batch_size, C); called with the model in eval mode.

    Raises:
        DivergedError: an output is not finite. Without this check such outputs would get a score that looks valid,
            because the arg max of NaN is class 0.
    """
    was_training = model.training
    model.eval()
    outputs = [logits(batch).float().softmax(dim=1).cpu() for batch in padded(rows, batch_size)]
    model.train(was_training)
    probabilities = torch.cat(outputs)[: len(rows)].numpy()
    if not np.isfinite(probabilities).all():
        raise DivergedError("the model's outputs are not finite")
    return probabilities


def _reseed(seed: int, device: torch.device) -> None:
    """Seed torch's default generators of the CPU and of this device.

    Not `torch.manual_seed`: it also queues the seed for every other kind of accelerator, together with a traceback.
    That takes 2 ms a call, which is half the time of a step that trains the head alone.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
