"""Shifted copies: seen at once, the same for every model, and nothing but what they say."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from harness.config.trial import Shift
from harness.data.augmentation import image_keys
from harness.data.corruptions import LIGHT, NOISE, shifted

KEYS = image_keys(["aa" * 32, "bb" * 32, "cc" * 32])


def images(side: int = 32) -> torch.Tensor:
    smooth = torch.nn.functional.interpolate(torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(0)), side)
    return smooth * 0.6 + 0.2


@pytest.mark.parametrize("shift", get_args(Shift))
def test_a_shift_changes_every_image_and_stays_in_range(shift: Shift) -> None:
    before = images()
    after = shifted(shift, before.clone(), KEYS)
    assert after.shape == before.shape
    assert after.dtype == torch.float32
    assert 0 <= float(after.min()) <= float(after.max()) <= 1
    assert ((after - before).abs().mean(dim=(1, 2, 3)) > 0.005).all()
    correlation = np.corrcoef(before.flatten().numpy(), after.flatten().numpy())[0, 1]
    assert correlation > 0.8, "the content is no longer there"


@pytest.mark.parametrize("shift", get_args(Shift))
def test_an_image_is_shifted_alike_whatever_stands_beside_it(shift: Shift) -> None:
    before = images()
    together = shifted(shift, before, KEYS)
    alone = torch.cat([shifted(shift, before[i : i + 1], KEYS[i : i + 1]) for i in (2, 0, 1)])[[1, 2, 0]]
    assert torch.allclose(together, alone, atol=1e-6)


def test_noise_has_its_strength_and_differs_between_images() -> None:
    grey = torch.full((2, 3, 64, 64), 0.5)
    noise = shifted("noise", grey, KEYS[:2]) - grey
    assert float(noise.std()) == pytest.approx(NOISE, rel=0.05)
    assert float(noise.mean()) == pytest.approx(0, abs=0.002)
    assert not torch.equal(noise[0], noise[1])


def test_brightness_scales_the_light_and_blur_keeps_it() -> None:
    before = images()
    assert torch.allclose(shifted("brightness", before, KEYS), before * LIGHT)
    flat = torch.full((3, 3, 32, 32), 0.4)
    assert torch.allclose(shifted("blur", flat, KEYS), flat, atol=1e-6)
    assert float(shifted("blur", before, KEYS).var()) < float(before.var())


def test_stain_moves_the_channels_apart_and_leaves_white_white() -> None:
    grey, white = torch.full((3, 3, 8, 8), 0.5), torch.ones(3, 3, 8, 8)
    red, green, blue = shifted("stain", grey, KEYS)[0, :, 0, 0].tolist()
    assert red < blue < 0.5 < green
    assert torch.equal(shifted("stain", white, KEYS), white)
