"""Input pipelines: what a batch's logits are computed from.

An ImagePipeline renders augmented views of the images and runs the whole model. A FeaturePipeline
(`harness.training.frozen_features.features`) reads cached activations of the frozen stages and runs the rest of the
model. The protocol and the plain pipeline are apart from the cache, so that both sides can import them.
"""

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
    """Normalisation of images: subtracts a mean and divides by a standard deviation, channel by channel."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> None:
        self._mean = torch.tensor(mean, device=device)[:, None, None]
        self._std = torch.tensor(std, device=device)[:, None, None]

    def __call__(self, images: Tensor) -> Tensor:
        """Return the normalised images; `images` is (B, C, H, W) in [0, 1]."""
        return (images - self._mean) / self._std


class InputPipeline(Protocol):
    """Input pipeline of one epoch: from images, or from cached features of the frozen stages."""

    def begin(self, epoch: int, rows: Rows, occurrence: Rows) -> None:
        """Set the rows of an epoch. Call it before the first step.

        Args:
            epoch: counted from 1.
            rows: image rows in training order, (steps, B).
            occurrence: how often each of these rows came before in this epoch, (steps, B).
        """

    def inputs(self, epoch: int, step: int, rows: Rows, occurrence: Rows) -> tuple[Tensor, Mixed | None]:
        """Return the input of `logits` for the augmented views of these rows, (B, ...), and how images were mixed.

        Args:
            step: counted from 0 in this epoch.
            rows, occurrence: (B,), this step's part of what `begin` was given.
        """

    def logits(self, model: TransferModel, inputs: Tensor) -> Tensor:
        """Return the logits (B, C) of a training batch or of a part of it."""

    def evaluate(self, model: TransferModel, rows: Rows) -> Tensor:
        """Return the logits (B, C) of the images of these rows, without augmentation."""


class ImagePipeline:
    """The input pipeline that renders every view from the image and runs the whole model."""

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
        """Do nothing: images need no preparation."""

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
