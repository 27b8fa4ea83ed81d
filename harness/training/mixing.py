"""mixup and CutMix: combine two images of a batch into one, and their labels in the same proportion.

mixup after Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization"; CutMix after Yun et al. 2019, "CutMix:
Regularization Strategy to Train Strong Classifiers with Localizable Features".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.config.trial import TrialConfig
from harness.seeds import derive


@dataclass(frozen=True)
class Mixed:
    """A batch of mixed images: image i is mixed from itself, with weight `share`, and image `partner[i]`."""

    images: Tensor  # (B, C, H, W)
    partner: Tensor  # (B,) indices into the batch
    share: float  # in [0, 1]


def mix(images: Tensor, config: TrialConfig, seed: int, epoch: int, step: int) -> Mixed | None:
    """Mix a batch of images in [0, 1]; return None if the configuration uses neither mixup nor CutMix.

    The random numbers are derived from (seed, epoch, step) and are the same in every trial. If mixup and CutMix are
    both configured, each batch gets one of them, chosen with equal probability.
    """
    if config.mixup == 0 and config.cutmix == 0:
        return None
    rng = np.random.Generator(np.random.PCG64([derive(seed, "mixing"), epoch, step]))
    coin, order = rng.random(), rng.permutation(len(images))
    cut = config.cutmix > 0 and (config.mixup == 0 or coin < 0.5)
    alpha = config.cutmix if cut else config.mixup
    share = float(rng.beta(alpha, alpha))
    partner = torch.from_numpy(order).to(images.device)
    if not cut:
        return Mixed(images * share + images[partner] * (1 - share), partner, share)
    top, bottom, left, right = _box(images.shape[-1], 1 - share, rng)
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[partner][:, :, top:bottom, left:right]
    pasted = (bottom - top) * (right - left) / images.shape[-1] ** 2  # less than drawn if the edge cuts the box
    return Mixed(mixed, partner, 1 - pasted)


def _box(side: int, area: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Return (top, bottom, left, right) of a square with this share of the area, cut off at the image's edges."""
    half = side * area**0.5 / 2
    y, x = rng.uniform(0, side, 2)
    top, bottom, left, right = (round(min(max(v, 0), side)) for v in (y - half, y + half, x - half, x + half))
    return top, bottom, left, right
