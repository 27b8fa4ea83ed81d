"""Step -> learning-rate factor."""

from __future__ import annotations

import math


def factor(step: int, total_steps: int, warmup_fraction: float) -> float:
    """The share of the peak rate at this step: a line up to 1, then half a cosine down towards 0.

    Args:
        step: 0-based, in [0, total_steps).
        total_steps: of the whole trial, not of an epoch.
        warmup_fraction: share of the steps on the rising line; the first of them is above zero.
    """
    warmup = round(warmup_fraction * total_steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total_steps - warmup, 1)))
