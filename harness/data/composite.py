"""Composite: an RGB image for people of an image with any number of channels. Models never see it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Of channel 0, 1, 2 and so on, as red, green and blue in [0, 1]. The first three are those of many fluorescence
# protocols (nuclei blue, then green and red); the primary and secondary colours come first, because they differ most.
PALETTE = (
    ("blue", (0.0, 0.0, 1.0)),
    ("green", (0.0, 1.0, 0.0)),
    ("red", (1.0, 0.0, 0.0)),
    ("cyan", (0.0, 1.0, 1.0)),
    ("magenta", (1.0, 0.0, 1.0)),
    ("yellow", (1.0, 1.0, 0.0)),
    ("white", (1.0, 1.0, 1.0)),
    ("orange", (1.0, 0.5, 0.0)),
    ("azure", (0.0, 0.5, 1.0)),
    ("lime", (0.5, 1.0, 0.0)),
    ("violet", (0.5, 0.0, 1.0)),
    ("rose", (1.0, 0.0, 0.5)),
    ("mint", (0.0, 1.0, 0.5)),
    ("salmon", (1.0, 0.5, 0.5)),
    ("lavender", (0.5, 0.5, 1.0)),
    ("pale green", (0.5, 1.0, 0.5)),
)


def composite(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Return images (..., H, W, C) as RGB (..., H, W, 3), with 8 bits.

    Three channels are red, green and blue, and one is grey. Otherwise each channel shines in its colour of the PALETTE,
    and the light is added up to full scale, as fluorescence microscopes show it. The brightness is not stretched: a
    dark channel looks as dark as it is.

    Args:
        pixels: uint8, or uint16 with full scale 65535; C is 1 to 16.
    """
    eight = (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels.astype(np.uint8, copy=False)
    channels = eight.shape[-1]
    if channels == 3:
        return eight
    if channels == 1:
        return np.ascontiguousarray(np.broadcast_to(eight, (*eight.shape[:-1], 3)))
    colours = np.array([PALETTE[channel][1] for channel in range(channels)], np.float32)
    light = np.minimum(eight.astype(np.float32) @ colours, 255)
    return np.asarray(np.rint(light), np.uint8)


def caption(channels: int) -> str:
    """Return a sentence on what an image shows that `composite` made; "" for three channels, which are shown as RGB."""
    if channels == 3:
        return ""
    if channels == 1:
        return "Images of one channel are shown in grey."
    named = ", ".join(f"{channel} {PALETTE[channel][0]}" for channel in range(channels))
    return f"Images are composites of {channels} channels: {named}."
