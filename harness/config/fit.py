"""Fit: how large an image becomes before a backbone sees it, and by which rule."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Fit:
    """The square that images are fitted to. Fits are ordered by their size."""

    side: int  # pixels a side
    shorter: int = 0  # pixels of the shorter side before the centre crop, with `resize: weights`; 0: another rule
    interpolation: str = ""  # bilinear or bicubic, with `resize: weights`

    @classmethod
    def of(cls, size: int | Fit) -> Fit:
        """Return the Fit itself, or that of a number of pixels a side."""
        return cls(size) if isinstance(size, int) else size

    @property
    def by_weights(self) -> bool:
        """Whether it is the transform that official weights were evaluated with."""
        return self.shorter > 0
