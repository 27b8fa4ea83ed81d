"""The layout of a TIFF file: which of its pages are channels, and which are planes along z and time."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

_IN_PAGE = frozenset("YXS")
_UNTOLD = frozenset("IQ")  # tifffile's letters for an axis without a name


@dataclass(frozen=True)
class Layout:
    """How the pages of a file's first series are ordered: `axes` from the slowest to the fastest, without length 1."""

    axes: tuple[tuple[str, int], ...]
    pages: Any  # tifffile's pages, in that order
    contiguous: int | None = None  # where the samples begin, if they follow one another without further pages
    others: int = 0  # pages outside of the series

    @property
    def channels(self) -> int:
        """Number of channels that are stored as pages."""
        return dict(self.axes).get("C", 1)

    @property
    def planes(self) -> int:
        """Number of planes along all other axes."""
        return prod(length for letter, length in self.axes if letter != "C")

    @property
    def untold(self) -> bool:
        """Whether there are several planes, and the file does not name their axis."""
        return bool(self.axes) and all(letter in _UNTOLD for letter, _ in self.axes)

    def as_channels(self) -> Layout:
        """Return the layout in which planes of an axis without a name are channels."""
        return Layout((("C", self.planes),), self.pages, self.contiguous, self.others)

    def position(self, plane: int, channel: int) -> int:
        """Return the position in `pages` of one channel of one plane."""
        rest = [(letter, length) for letter, length in self.axes if letter != "C"]
        places = dict(zip((letter for letter, _ in rest), _unravelled(plane, [n for _, n in rest]), strict=True))
        places["C"] = channel
        position = 0
        for letter, length in self.axes:
            position = position * length + places[letter]
        return position


def layout_of(tiff: Any, page: Any) -> Layout:
    """Return the layout of a file that tifffile has opened; `page` is its first page."""
    try:
        first = tiff.series[0]
        letters, lengths = first.get_axes(False), first.get_shape(False)
        pages, others = first.pages, sum(len(one.pages) for one in tiff.series[1:])
        contiguous = first.dataoffset if int(page.compression) == 1 and page.bitspersample in (8, 16, 32, 64) else None
    except Exception:  # the metadata of microscopes cause many kinds of errors, and pages can be read without them
        count = len(tiff.pages)
        return Layout((("I", count),) if count > 1 else (), tiff.pages)
    outer = [(letter, int(n)) for letter, n in zip(letters, lengths, strict=False) if letter not in _IN_PAGE and n > 1]
    if len({letter for letter, _ in outer}) < len(outer):
        outer = [("I", prod(n for _, n in outer))]
    count = len(pages)
    if prod(n for _, n in outer) != count and dict(outer).get("C") == page.samplesperpixel:
        outer = [(letter, n) for letter, n in outer if letter != "C"]  # the channels are samples of each page
    if prod(n for _, n in outer) == count:
        return Layout(tuple(outer), pages, None, others)
    if count == 1 and contiguous is not None:
        return Layout(tuple(outer), pages, int(contiguous), others)
    return Layout((("I", count),) if count > 1 else (), pages, None, others)


def _unravelled(index: int, lengths: list[int]) -> list[int]:
    return [int(place) for place in np.unravel_index(index, lengths)] if lengths else []
