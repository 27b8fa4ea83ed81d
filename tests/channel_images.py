"""Small images of N channels, which a source holds in memory: the class is the brightest channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.sources.listing import Listing, Sample

CLASSES = ("actin", "membrane", "nucleus")
SLIDES, PER_SLIDE, SIDE = 12, 9, 32


def pixels_of(number: int, channels: int, dtype: Any = np.uint8, side: int = SIDE) -> NDArray[Any]:
    """Image `number`, (side, side, channels)."""
    full = np.iinfo(dtype).max
    values = np.random.default_rng(number).integers(0, full // 2, (side, side, channels))
    values[:, :, number % 3 % channels] += full // 4
    return values.astype(dtype)


def listing_of(images: Sequence[NDArray[Any]]) -> Listing:
    """A source of these images; image i has class i mod 3 and slide i // 9."""
    samples = tuple(
        Sample(f"slide{number // PER_SLIDE:02d}_{number:03d}", CLASSES[number % 3]) for number in range(len(images))
    )
    return Listing("stacks", "made by the test", samples, lambda row: images[row], classes=CLASSES)
