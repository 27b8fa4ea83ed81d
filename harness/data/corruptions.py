"""Shifted copies of test images, which imitate another microscope, lamp, stain or file format.

Each shift has one strength: a person sees it at once, and can still recognise the content. Random numbers depend only
on the image's key, so that an image is shifted in the same way for every model.

    blur         out of focus: a Gaussian of 1.5 % of the side (1 px at 64)
    noise        a short exposure: Gaussian noise, standard deviation 0.06 of full scale
    brightness   a dim lamp: 0.75 of the light
    stain        another staining protocol: optical density of the channels times 1.3, 0.8 and 1.15
    jpeg         a small file: JPEG at quality 20

`stain` needs the three colours of transmitted light. The others work with any number of channels; JPEG files hold grey
or RGB, so that with other channels each one is stored by itself.

After Hendrycks and Dietterich 2019, arXiv 1903.12261 (corruptions), and Tellez et al. 2019, arXiv 1902.06543 (stain).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from harness.config.trial import Shift
from harness.errors import ConfigError

BLUR = 0.015  # standard deviation, as a share of the side
NOISE = 0.06  # standard deviation, as a share of full scale
LIGHT = 0.75  # factor on the brightness
STAIN = (1.3, 0.8, 1.15)  # factor on the optical density of red, green and blue
QUALITY = 20  # of JPEG, 1 to 95


def shifted(shift: Shift, images: torch.Tensor, keys: NDArray[np.uint64]) -> torch.Tensor:
    """Return the shifted images.

    Args:
        images: (B, C, S, S), float32 in [0, 1]; `stain` needs three channels.
        keys: (B,), see `harness.data.augmentation.image_keys`; an image's noise is derived from its key.

    Returns:
        The same shape and type, in [0, 1].
    """
    return _SHIFTS[shift](images, keys).clamp(0, 1)


def check_shifts(shifts: Iterable[Shift], channels: int) -> None:
    """Check that these shifts can be made of images with this number of channels.

    Raises:
        ConfigError: names the shift that cannot.
    """
    if channels != 3 and "stain" in shifts:
        raise ConfigError(
            f"shifts: stain needs images of three channels (red, green, blue), but these have {channels}; leave stain "
            "out, or choose three channels by data.channels."
        )


def _blur(images: torch.Tensor, keys: NDArray[np.uint64]) -> torch.Tensor:
    sigma = BLUR * images.shape[-1]
    reach = max(1, round(3 * sigma))
    x = torch.arange(-reach, reach + 1, dtype=torch.float32, device=images.device)
    kernel = torch.exp(-(x**2) / (2 * sigma**2))
    channels = images.shape[1]
    kernel = (kernel / kernel.sum()).expand(channels, 1, -1)
    padded = F.pad(images, (reach, reach, reach, reach), mode="replicate")
    across = F.conv2d(padded, kernel[:, :, None, :], groups=channels)
    return F.conv2d(across, kernel[:, :, :, None], groups=channels)


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
    if pixels.shape[3] == 3:
        found = [_through_jpeg(image) for image in pixels]
    else:
        found = [np.stack([_through_jpeg(channel) for channel in np.moveaxis(image, 2, 0)], 2) for image in pixels]
    return torch.from_numpy(np.stack(found)).to(images.device).permute(0, 3, 1, 2).float() / 255


def _through_jpeg(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an RGB image (H, W, 3) or a grey one (H, W) as a JPEG file gives it back."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(stream, format="JPEG", quality=QUALITY)
    return np.asarray(Image.open(stream))


_SHIFTS: dict[Shift, Callable[[torch.Tensor, NDArray[np.uint64]], torch.Tensor]] = {
    "blur": _blur,
    "noise": _noise,
    "brightness": _brightness,
    "stain": _stain,
    "jpeg": _jpeg,
}
