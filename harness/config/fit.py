"""Fit: how large an image becomes before a backbone sees it, and by which rule."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Fit:
    """The square that images are fitted to. Fits are ordered by their size."""

    side: int  # pixels a side
    shorter: int = 0  # pixels of the shorter side before the centre crop, with `resize: weights`; 0: another rule
    interpolation: str = ""  # bilinear or bicubic, with `resize: weights`

    @property
    def by_weights(self) -> bool:
        """Whether it is the transform that official weights were evaluated with."""
        return self.shorter > 0
