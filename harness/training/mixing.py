"""mixup and CutMix: two images of a batch in one, and labels to match.

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
    """A batch in which image i is `share` of itself and 1 - `share` of image `partner[i]`."""

    images: Tensor  # (B, 3, H, W)
    partner: Tensor  # (B,) places in the batch
    share: float  # in [0, 1]


def mix(images: Tensor, config: TrialConfig, seed: int, epoch: int, step: int) -> Mixed | None:
    """Mix a batch of images in [0, 1]; None where the configuration mixes nothing.

    One draw for each (seed, epoch, step), the same in every trial. With both parameters above zero each batch takes
    one of the two, by a fair coin.
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
    pasted = (bottom - top) * (right - left) / images.shape[-1] ** 2  # the box may reach over the edge
    return Mixed(mixed, partner, 1 - pasted)


def _box(side: int, area: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A square of this share of the area around a random pixel, cut off at the edges."""
    half = side * area**0.5 / 2
    y, x = rng.uniform(0, side, 2)
    top, bottom, left, right = (round(min(max(v, 0), side)) for v in (y - half, y + half, x - half, x + half))
    return top, bottom, left, right
