"""Shifted copies of test images, which imitate another microscope, lamp, stain or file format.

Each shift has one strength: a person sees it at once, and can still recognise the content. Random numbers depend only
on the image's key, so that an image is shifted in the same way for every model.

    blur         out of focus: a Gaussian of 1.5 % of the side (1 px at 64)
    noise        a short exposure: Gaussian noise, standard deviation 0.06 of full scale
    brightness   a dim lamp: 0.75 of the light
    stain        another staining protocol: optical density of the channels times 1.3, 0.8 and 1.15
    jpeg         a small file: JPEG at quality 20

After Hendrycks and Dietterich 2019, arXiv 1903.12261 (corruptions), and Tellez et al. 2019, arXiv 1902.06543 (stain).
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from harness.config.trial import Shift

BLUR = 0.015  # standard deviation, as a share of the side
NOISE = 0.06  # standard deviation, as a share of full scale
LIGHT = 0.75  # factor on the brightness
STAIN = (1.3, 0.8, 1.15)  # factor on the optical density of red, green and blue
QUALITY = 20  # of JPEG, 1 to 95


def shifted(shift: Shift, images: torch.Tensor, keys: NDArray[np.uint64]) -> torch.Tensor:
    """Return the shifted images.

    Args:
        images: (B, 3, S, S), float32 in [0, 1].
        keys: (B,), see `harness.data.augmentation.image_keys`; an image's noise is derived from its key.

    Returns:
        The same shape and type, in [0, 1].
    """
    return _SHIFTS[shift](images, keys).clamp(0, 1)


def _blur(images: torch.Tensor, keys: NDArray[np.uint64]) -> torch.Tensor:
    sigma = BLUR * images.shape[-1]
    reach = max(1, round(3 * sigma))
    x = torch.arange(-reach, reach + 1, dtype=torch.float32, device=images.device)
    kernel = torch.exp(-(x**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(3, 1, -1)
    padded = F.pad(images, (reach, reach, reach, reach), mode="replicate")
    across = F.conv2d(padded, kernel[:, :, None, :], groups=3)
    return F.conv2d(across, kernel[:, :, :, None], groups=3)


def _noise(images: torch.Tensor, keys: NDArray[np.uint64]) -> torch.Tensor:
    drawn = [
        np.random.Generator(np.random.Philox(key=int(key))).standard_normal(images.shape[1:], np.float32)
        for key in keys
    ]
    return images + NOISE * torch.from_numpy(np.stack(drawn)).to(images.device)


def _brightness(images: torch.Tensor, keys: NDArray[np.uint64]) -> torch.Tensor:
    return images * LIGHT


def _stain(images: torch.Tensor, keys: NDArray[np.uint64]) -> torch.Tensor:
    """Multiply the optical density: by Beer and Lambert, this is a power of the transmitted light."""
    power = torch.tensor(STAIN, device=images.device)[None, :, None, None]
    return images.clamp(min=1 / 255) ** power


def _jpeg(images: torch.Tensor, keys: NDArray[np.uint64]) -> torch.Tensor:
    pixels = (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    found = []
    for image in pixels:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, format="JPEG", quality=QUALITY)
        found.append(np.asarray(Image.open(stream).convert("RGB")))
    return torch.from_numpy(np.stack(found)).to(images.device).permute(0, 3, 1, 2).float() / 255


_SHIFTS: dict[Shift, Callable[[torch.Tensor, NDArray[np.uint64]], torch.Tensor]] = {
    "blur": _blur,
    "noise": _noise,
    "brightness": _brightness,
    "stain": _stain,
    "jpeg": _jpeg,
}
