"""fit: resize decoded pixels to the square that a study trains on."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Resize = Literal["stretch", "pad", "crop"]
Colour = tuple[int, int, int]
Pixels = NDArray[np.uint8] | NDArray[np.uint16]


def fit(pixels: Pixels, size: int, resize: Resize, background: Colour = (255, 255, 255)) -> Pixels:
    """Resize an image (height, width, 3) to (size, size, 3) of the same dtype, bicubic with antialiasing."""
    height, width = pixels.shape[:2]
    if resize == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return _resample(pixels[top : top + side, left : left + side], size, size)
    if resize == "pad" and height != width:
        scale = size / max(height, width)
        rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
        full = 65535 if pixels.dtype == np.uint16 else 255
        canvas = np.empty((size, size, 3), pixels.dtype)
        canvas[:] = np.rint(np.asarray(background) * (full / 255)).astype(pixels.dtype)
        top, left = (size - rows) // 2, (size - columns) // 2
        canvas[top : top + rows, left : left + columns] = _resample(pixels, rows, columns)
        return canvas
    return _resample(pixels, size, size)


def _resample(pixels: Pixels, rows: int, columns: int) -> Pixels:
    if pixels.shape[:2] == (rows, columns):
        return pixels
    shape = (columns, rows)
    if pixels.dtype == np.uint8:
        image = Image.fromarray(np.ascontiguousarray(pixels))
        resized: NDArray[np.uint8] = np.asarray(image.resize(shape, Image.Resampling.BICUBIC))
        return resized
    channels = [
        np.asarray(Image.fromarray(pixels[..., c].astype(np.float32)).resize(shape, Image.Resampling.BICUBIC))
        for c in range(3)
    ]
    return np.asarray(np.rint(np.clip(np.stack(channels, axis=-1), 0, 65535)), dtype=np.uint16)
