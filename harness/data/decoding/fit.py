"""fit: resize decoded pixels to the square that a study trains on."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.config.fit import Fit
from harness.data.decoding.raw import MAX_PIXELS
from harness.data.decoding.rules import Colour
from harness.data.decoding.scaling import Pixels, background_of
from harness.errors import DataError

Resize = Literal["stretch", "pad", "crop", "weights"]

_INTERPOLATION = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def fit(pixels: Pixels, size: int | Fit, resize: Resize, background: Colour = (255, 255, 255)) -> Pixels:
    """Resize an image (height, width, channels) to a square (side, side, channels) of its type, with antialiasing.

    What is padded shows the background; if there are not three channels, the mean of its colours.

    Args:
        size: pixels a side. With `resize: weights` it is the Fit of the weights, and the result is what torchvision's
            `weights.transforms()` makes of a Pillow image, pixel for pixel. The other rules are bicubic.

    Raises:
        DataError: with `resize: weights`, the image is too long for its width. The message is without the file's name.
    """
    if isinstance(size, Fit) and size.by_weights:
        return _as_weights_do(pixels, size)
    if resize == "weights":
        raise ValueError("resize: weights needs the Fit of the weights")
    size = size.side if isinstance(size, Fit) else size
    height, width, channels = pixels.shape
    if resize == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return _resample(pixels[top : top + side, left : left + side], size, size)
    if resize == "pad" and height != width:
        scale = size / max(height, width)
        rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
        full = 65535 if pixels.dtype == np.uint16 else 255
        canvas = np.empty((size, size, channels), pixels.dtype)
        canvas[:] = np.rint(np.asarray(background_of(background, channels)) * (full / 255)).astype(pixels.dtype)
        top, left = (size - rows) // 2, (size - columns) // 2
        canvas[top : top + rows, left : left + columns] = _resample(pixels, rows, columns)
        return canvas
    return _resample(pixels, size, size)


def _as_weights_do(pixels: Pixels, size: Fit) -> Pixels:
    """Resize the shorter side, and crop the middle; lengths are rounded as torchvision rounds them."""
    height, width = pixels.shape[:2]
    longer = int(size.shorter * max(height, width) / min(height, width))
    if longer * size.shorter > MAX_PIXELS:
        raise DataError(
            f"has {width} x {height} pixels, too long for `resize: weights`, which keeps the proportions before it "
            "crops: cut it into tiles, or use another data.resize"
        )
    rows, columns = (size.shorter, longer) if height <= width else (longer, size.shorter)
    resized = _resample(pixels, rows, columns, _INTERPOLATION[size.interpolation])
    top, left = round((rows - size.side) / 2), round((columns - size.side) / 2)
    return resized[top : top + size.side, left : left + size.side].copy()


def _resample(
    pixels: Pixels, rows: int, columns: int, interpolation: Image.Resampling = Image.Resampling.BICUBIC
) -> Pixels:
    if pixels.shape[:2] == (rows, columns):
        return pixels
    shape = (columns, rows)
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        image = Image.fromarray(np.ascontiguousarray(pixels))
        resized: NDArray[np.uint8] = np.asarray(image.resize(shape, interpolation))
        return resized
    exact = np.uint8 if pixels.dtype == np.uint8 else np.float32
    planes = [Image.fromarray(np.ascontiguousarray(pixels[..., c], dtype=exact)) for c in range(pixels.shape[2])]
    stacked = np.stack([np.asarray(plane.resize(shape, interpolation)) for plane in planes], axis=-1)
    return stacked if exact is np.uint8 else np.asarray(np.rint(np.clip(stacked, 0, 65535)), dtype=np.uint16)
