"""Predictions of shifted copies are those of the shifted images, and of nothing else."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import nn

from harness.data.corruptions import LIGHT
from harness.training.loop import predict_images
from harness.training.trial_data import TrialData


class MeanColour(nn.Module):
    """Answers with the mean of each channel."""

    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3))


def data() -> TrialData:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (7, 8, 8, 3)).astype(np.uint8)
    rows = np.arange(7)
    return TrialData(images, rows % 3, rows.astype(np.uint64), rows[:4], rows[4:], ("a", "b", "c"))


def answers(shift: Any) -> np.ndarray:
    return predict_images(cast(Any, MeanColour()), data(), np.arange(7), 4, torch.device("cpu"), shift)


def test_a_shifted_copy_is_what_the_model_answers() -> None:
    means = torch.from_numpy(data().images / 255.0).mean(dim=(1, 2))
    assert np.allclose(answers(None), means.softmax(dim=1), atol=1e-6)
    assert np.allclose(answers("brightness"), (means * LIGHT).softmax(dim=1), atol=1e-6)
    assert not np.allclose(answers("stain"), answers(None), atol=1e-3)


def test_an_image_keeps_its_noise_whatever_batch_it_stands_in() -> None:
    whole = answers("noise")
    alone = predict_images(cast(Any, MeanColour()), data(), np.array([5, 2]), 2, torch.device("cpu"), "noise")
    assert np.allclose(alone, whole[[5, 2]], atol=1e-6)
