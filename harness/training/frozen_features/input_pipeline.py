"""Where the logits of a batch come from: views of images through the whole model, or shared activations through its
last part (`harness.training.frozen_features.features`)."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.config.trial import TrialConfig
from harness.model.transfer import TransferModel
from harness.seeds import derive
from harness.training.mixing import Mixed, mix
from harness.training.precision import EXACT, Choice
from harness.training.trial_data import TrialData, draw_views

Rows = NDArray[np.int64]


class Normalise:
    """Subtract the mean and divide by the standard deviation of the weights, channel by channel."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> None:
        self._mean = torch.tensor(mean, device=device)[:, None, None]
        self._std = torch.tensor(std, device=device)[:, None, None]

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the same shape, normalised."""
        return (images - self._mean) / self._std


class InputPipeline(Protocol):
    """Where the logits of a batch come from."""

    def begin(self, epoch: int, rows: Rows, occurrence: Rows) -> None:
        """Told the rows of an epoch before its first step, and how often each came before, both (steps, B)."""

    def inputs(self, epoch: int, step: int, rows: Rows, occurrence: Rows) -> tuple[Tensor, Mixed | None]:
        """What `logits` reads of the views of these rows in this epoch, (B, ...), and how images were mixed."""

    def logits(self, model: TransferModel, inputs: Tensor) -> Tensor:
        """Logits (B, C) of a batch that trains, or of a part of it."""

    def evaluate(self, model: TransferModel, rows: Rows) -> Tensor:
        """Logits (B, C) of these rows, un-augmented."""


class ImagePipeline:
    """Renders every view anew and runs the whole model."""

    def __init__(
        self,
        data: TrialData,
        config: TrialConfig,
        seed: int,
        normalise: Normalise,
        device: torch.device,
        choice: Choice = EXACT,
    ) -> None:
        self._data, self._config, self._seed = data, config, seed
        self._normalise, self._device, self._choice = normalise, device, choice
        self._views_seed = derive(seed, "views")

    def begin(self, epoch: int, rows: Rows, occurrence: Rows) -> None:
        """Nothing to prepare."""

    def inputs(self, epoch: int, step: int, rows: Rows, occurrence: Rows) -> tuple[Tensor, Mixed | None]:
        recipe = self._config.augmentation
        images = draw_views(self._data, recipe, self._views_seed, epoch, rows, self._device, occurrence)
        mixed = mix(images, self._config, self._seed, epoch, step)
        inputs = self._normalise(images if mixed is None else mixed.images)
        return self._choice.training.arrange(inputs), mixed

    def logits(self, model: TransferModel, inputs: Tensor) -> Tensor:
        with self._choice.training.autocast(self._device):
            logits: Tensor = model(inputs)
        return logits

    def evaluate(self, model: TransferModel, rows: Rows) -> Tensor:
        inputs = self._normalise(self._data.batch(rows, self._device))
        with self._choice.forward.autocast(self._device):
            logits: Tensor = model(self._choice.forward.arrange(inputs))
        return logits
