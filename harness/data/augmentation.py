"""Augmentation: random views of images, which depend on (seed, epoch, image, occurrence in that epoch) alone.

Two trials with the same seed see the same views, in any order and on any worker. A difference between the trials is
therefore not caused by different random views.

    recipe       what is drawn                                              distinct views of an image
    none         nothing                                                    1
    flips        one of the eight rotations and mirror images of a square   8
    microscopy   flips, then stain strength of each channel and brightness  unbounded
    natural      a random crop, resized, a left-right flip, brightness      unbounded

Images of three channels are taken for RGB, where stains absorb light. Images of other channels are taken for
fluorescence, where dyes emit it: there, `microscopy` multiplies the light of each channel instead of its density.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from harness.config.parameters import Augmentation

_MASK = np.uint64(0xFFFFFFFFFFFFFFFF)
STAIN_JITTER = 0.2  # each channel's optical density, or its light if it is fluorescence, is multiplied by 1 ± this
BRIGHTNESS_JITTER = 0.1  # the whole image is multiplied by 1 ± this
CROP_AREA = (0.35, 1.0)  # of the image
CROP_RATIO = (3 / 4, 4 / 3)  # width to height
# How many random numbers a view needs; microscopy needs one more for each channel.
_NUMBERS = {"none": 0, "flips": 1, "microscopy": 2, "natural": 6}


def image_keys(digests: list[str]) -> NDArray[np.uint64]:
    """Return one 64-bit key for each image, (N,), from its SHA-256 in hexadecimal."""
    return np.array([int(digest[:16], 16) for digest in digests], dtype=np.uint64)


def draw(
    recipe: Augmentation,
    seed: int,
    epoch: int,
    keys: NDArray[np.uint64],
    occurrence: NDArray[np.integer] | int = 0,
    channels: int = 3,
) -> NDArray[np.float64]:
    """Draw the random numbers of the views of images with these keys in one epoch, (N, numbers of the recipe).

    Only `apply` interprets them. Equal rows give equal views.

    Args:
        occurrence: how often the image came before in the same epoch; 0 unless images are drawn with replacement.
        channels: of the images.
    """
    numbers = _NUMBERS[recipe] + (channels if recipe == "microscopy" else 0)
    uniform = _uniform(seed, epoch, keys, np.broadcast_to(np.asarray(occurrence, np.uint64), keys.shape), numbers)
    if recipe in ("flips", "microscopy"):
        uniform[:, 0] = np.floor(uniform[:, 0] * 8)
    return uniform


def apply(recipe: Augmentation, images: torch.Tensor, drawn: NDArray[np.float64]) -> torch.Tensor:
    """Render the views.

    Args:
        images: (B, C, H, W), float32 in [0, 1], H = W.
        drawn: rows of `draw` for these images and this number of channels.

    Returns:
        (B, C, H, W), float32. Rotations and flips move pixels and do not change their values.
    """
    if recipe == "none":
        return images
    if recipe == "natural":
        return _natural(images, drawn)
    turned = torch.empty_like(images)
    codes = torch.from_numpy(drawn[:, 0].astype(np.int64))
    for code in torch.unique(codes).tolist():
        rows = torch.nonzero(codes == code).flatten().to(images.device)
        turned[rows] = dihedral(images[rows], int(code))
    return turned if recipe == "flips" else _stained(turned, drawn[:, 1:])


def dihedral(images: torch.Tensor, code: int) -> torch.Tensor:
    """Apply one of the eight symmetries of a square: `code` mod 4 quarter turns; from 4 on, mirror first."""
    if code >= 4:
        images = images.flip(-1)
    return torch.rot90(images, code % 4, dims=(-2, -1))


def _stained(images: torch.Tensor, uniform: NDArray[np.float64]) -> torch.Tensor:
    """Vary the strength of each channel's dye, and the brightness.

    In RGB images the optical density is proportional to the dye (Beer and Lambert); in fluorescence the light is.
    """
    channels = images.shape[1]
    scale = _column(1 + STAIN_JITTER * (2 * uniform[:, :channels] - 1), images)
    bright = _column(1 + BRIGHTNESS_JITTER * (2 * uniform[:, channels : channels + 1] - 1), images)
    if channels != 3:
        return (images * scale * bright).clamp(0, 1)
    density = -torch.log(images.clamp(min=1 / 255))
    return (torch.exp(-density * scale) * bright).clamp(0, 1)


def _natural(images: torch.Tensor, uniform: NDArray[np.float64]) -> torch.Tensor:
    """Crop a random area and aspect ratio, resize it to the full size, mirror it at random, and vary the brightness."""
    area = CROP_AREA[0] + (CROP_AREA[1] - CROP_AREA[0]) * uniform[:, 0]
    ratio = np.exp(np.log(CROP_RATIO[0]) + (np.log(CROP_RATIO[1]) - np.log(CROP_RATIO[0])) * uniform[:, 1])
    width, height = np.minimum(np.sqrt(area * ratio), 1.0), np.minimum(np.sqrt(area / ratio), 1.0)
    centre_x, centre_y = (2 * uniform[:, 2] - 1) * (1 - width), (2 * uniform[:, 3] - 1) * (1 - height)
    theta = np.zeros((len(uniform), 2, 3))
    theta[:, 0, 0] = width * np.where(uniform[:, 4] < 0.5, -1.0, 1.0)
    theta[:, 1, 1] = height
    theta[:, 0, 2], theta[:, 1, 2] = centre_x, centre_y
    affine = torch.from_numpy(theta.astype(np.float32)).to(images.device)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    cropped = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    bright = _column(1 + BRIGHTNESS_JITTER * (2 * uniform[:, 5:6] - 1), images)
    return (cropped * bright).clamp(0, 1)


def _column(values: NDArray[np.float64], like: torch.Tensor) -> torch.Tensor:
    """Return (B, k) numbers as a (B, k, 1, 1) tensor on the images' device."""
    return torch.from_numpy(values.astype(np.float32)).to(like.device)[:, :, None, None]


def _uniform(
    seed: int, epoch: int, keys: NDArray[np.uint64], occurrence: NDArray[np.uint64], numbers: int
) -> NDArray[np.float64]:
    """Return numbers in [0, 1), each from its own key alone, by a counter-based generator (rounds of SplitMix64)."""
    with np.errstate(over="ignore"):
        state = _mix(keys ^ _mix(np.uint64(seed & int(_MASK)) + np.uint64(0x5851F42D4C957F2D)))
        state = _mix(state + np.uint64(epoch) * np.uint64(0x9E3779B97F4A7C15))
        state = _mix(state + occurrence * np.uint64(0xD1B54A32D192ED03))
        counter = np.arange(1, numbers + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        bits = _mix(state[:, None] + counter[None, :])
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(x: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint64]:
    """Mix the bits: the finaliser of SplitMix64.

    After Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".
    """
    x = np.asarray(x, np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
