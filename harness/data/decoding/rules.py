"""ReadingRules: all settings that decide which pixels a file gives, and the key of everything stored from them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

from harness.config.data import COLOURS, BitDepth, DataConfig, Frames, NotFinite

Colour = tuple[int, int, int]
# For each colour, the channels whose mean it shows; a colour without channels is black.
Mixture = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

VERSION = 3  # of the pixels: raise it if a file decodes to other values


@dataclass(frozen=True)
class ReadingRules:
    """How files become pixels. The fields have the names and meanings of the keys under `data` of a study file."""

    channels: Literal["all"] | Mixture | None = None
    frames: Frames = "first"
    bit_depth: BitDepth = "dtype"
    background: Colour = (255, 255, 255)
    max_megapixels: float = 50.0
    not_finite: NotFinite = "error"
    value_range: tuple[float, float] | None = None  # (low, high) of the training part, for `bit_depth: used`

    @property
    def max_pixels(self) -> int:
        """Largest width x height of an image that is read."""
        return int(self.max_megapixels * 1_000_000)

    def cache_key(self) -> str:
        """Return a text that is equal only for rules that give the same pixels, in the same version of the decoder.

        Everything that is stored from pixels must have it in its name.
        """
        return json.dumps([VERSION, asdict(self)], sort_keys=True)


def rules_of(config: DataConfig, value_range: tuple[float, float] | None = None) -> ReadingRules:
    """Return the rules that a study's keys describe.

    Args:
        config: the keys under `data`.
        value_range: (low, high) of the sample values of the training part, which `bit_depth: used` scales by; without
            it, every image is scaled by its own range.
    """
    return ReadingRules(
        channels=_mixture(config.channels),
        frames=config.frames,
        bit_depth=config.bit_depth,
        background=config.background,
        max_megapixels=float(config.max_megapixels),  # 50 and 50.0 are one rule, and must be one key
        not_finite=config.not_finite,
        value_range=value_range if config.bit_depth == "used" else None,
    )


def _mixture(
    channels: Literal["all"] | tuple[int, ...] | dict[str, int | tuple[int, ...]] | None,
) -> Literal["all"] | Mixture | None:
    if channels is None or channels == "all":
        return channels
    entries = [channels.get(colour, ()) for colour in COLOURS] if isinstance(channels, dict) else channels
    red, green, blue = ((entry,) if isinstance(entry, int) else tuple(entry) for entry in entries)
    return red, green, blue
