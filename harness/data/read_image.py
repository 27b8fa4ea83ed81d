"""read_image: one image file as a study trains on it, for looking at and for tests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.config.reading_keys import reading_config
from harness.data.decoding import decode
from harness.data.decoding.raw import read_bytes
from harness.data.decoding.rules import rules_of
from harness.errors import ConfigError, DataError


def read_image(
    path: str | os.PathLike[str],
    *,
    frame: int | None = None,
    value_range: tuple[float, float] | None = None,
    **keys: Any,
) -> NDArray[np.float32]:
    """Return the pixels of an image file exactly as a study with these `data` keys trains on them.

    The kind of the file is recognised by its content, whatever its name ends with.

    Args:
        path: of the file.
        frame: number of one frame of a stack or animation, from 0, as `frames: each` makes it an image of its own.
        value_range: (low, high) of the training images, which `bit_depth: used` needs.
        keys: keys of `data` in a study file with their values there: channels, frames, bit_depth, not_finite,
            background, max_megapixels, image_size, resize. Without image_size, the image keeps its size.

    Returns:
        (height, width, 3) in [0, 1]: red, green, blue; (height, width, channels of the file) with `channels="all"`.

    Raises:
        ConfigError: a key is unknown, or its value is not allowed.
        DataError: the file cannot be read; the message has its name, the reason and the way out.

    Example:
        >>> read_image("cell.tif", channels=[2, 0, 1], bit_depth=12).shape  # doctest: +SKIP
        (1024, 1024, 3)
    """
    config = reading_config(keys)
    if config.image_size == "native":
        raise ConfigError("image_size must be a number of pixels here, because native depends on a backbone.")
    if config.resize == "weights":
        raise ConfigError("resize must be stretch, pad or crop here, because weights depends on a backbone.")
    if config.bit_depth == "used" and value_range is None:
        raise ConfigError("bit_depth='used' needs value_range=(low, high), the range of the training images.")
    rules = rules_of(config, value_range)
    file = Path(path)
    try:
        with decode.quiet():
            data = read_bytes(file, rules.max_pixels)
            if config.frames == "each" and frame is None and (count := decode.count_frames(data, rules)) > 1:
                raise DataError(f"has {count} frames, each of which is an image: give frame=0 to {count - 1}")
            pixels, _ = decode.read(data, rules, frame)
    except OSError as error:
        raise DataError(f"{file.name}: cannot be opened ({error.strerror or error})") from None
    except DataError as error:
        raise DataError(f"{file.name}: {error}") from None
    if "image_size" in keys:
        assert isinstance(config.image_size, int)
        pixels = decode.fit(pixels, config.image_size, config.resize, config.background)
    return pixels.astype(np.float32) / np.float32(65535 if pixels.dtype == np.uint16 else 255)
