"""Channels: which channels of a file become which colours, by `data.channels`. No channel is left out in silence."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.config.data import MAX_CHANNELS
from harness.data.decoding.raw import Opened
from harness.data.decoding.rules import Mixture, ReadingRules
from harness.errors import DataError


def mixture_of(opened: Opened, rules: ReadingRules) -> Mixture | None:
    """Return which channels each colour shows; None if the channels are used as they are.

    Raises:
        DataError: the file has another number of channels than can be shown, or lacks one that the rules name.
    """
    count = opened.channels
    if rules.channels == "all":
        if count > MAX_CHANNELS:
            raise DataError(
                f"has {count} channels, but at most {MAX_CHANNELS} can be trained on: pick three, as in "
                "data.channels: [2, 0, 1]"
            )
        return None
    if rules.channels is None:
        if opened.colours == "channels" and count not in (1, 3):
            raise DataError(
                f"has {count} channels, and nothing says which colours they are: pick three (data.channels: "
                f"{'[0, 1, 2]' if count > 2 else '[0, 1, 1]'}), mix them (data.channels: {{red: 0, green: [0, 1]}}), "
                "or train on every channel (data.channels: all)"
            )
        return None
    missing = sorted({number for numbers in rules.channels for number in numbers if number >= count})
    if missing:
        there = f"{count} channels (0 to {count - 1})" if count > 1 else "1 channel (0)"
        raise DataError(f"has {there}, but data.channels names channel {', '.join(map(str, missing))}")
    return rules.channels


def mixed(colours: NDArray[Any], mixture: Mixture | None) -> NDArray[Any]:
    """Return the colours that a mixture makes of channels (height, width, channels).

    A colour of several channels is their mean, because a sum would leave the scale and lose the bright values.
    """
    if mixture is None:
        return colours
    if all(len(numbers) == 1 for numbers in mixture):
        return colours[..., [numbers[0] for numbers in mixture]]
    out = np.zeros((*colours.shape[:2], 3), np.float64)
    for colour, numbers in enumerate(mixture):
        for number in numbers:
            out[..., colour] += colours[..., number] / len(numbers)
    return out
