"""Listing: what every source returns before any pixel is read: a Sample for each image, and a function to get it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Frame:
    """One frame of a file that has several, counted from 0."""

    path: Path
    number: int


# The file or a frame of it, an image that a library has opened, or the pixels.
Stored = Path | Frame | Image.Image | NDArray[np.uint8]


@dataclass(frozen=True)
class Sample:
    """One image: its path relative to the root (escaped, with /), its class, and the group and part that were given."""

    path: str
    label: str
    group: str = ""
    fixed_split: str = ""  # "", train, validation or test


@dataclass(frozen=True)
class LeftAside:
    """Files or folders that are not read, of one reason and one class. `example` is a path relative to the root."""

    reason: str
    label: str  # "" if they belong to no class
    count: int
    example: str


class Aside:
    """Counts what is left aside while a source is listed."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], tuple[int, str]] = {}

    def add(self, reason: str, example: str, label: str = "") -> None:
        """Count one file or folder; the first one of a reason and class is kept as the example."""
        count, first = self._found.get((reason, label), (0, example))
        self._found[reason, label] = count + 1, first

    def entries(self) -> tuple[LeftAside, ...]:
        """Return everything that was counted, sorted by reason and class."""
        return tuple(
            LeftAside(reason, label, count, example)
            for (reason, label), (count, example) in sorted(self._found.items())
        )


@dataclass(frozen=True)
class Listing:
    """All images of one source, sorted by path."""

    name: str
    source: str  # as the data card shows it
    samples: tuple[Sample, ...]
    fetch: Callable[[int], Stored]  # from a sample's index
    left_aside: tuple[LeftAside, ...] = ()  # files and folders that are not read
    split_from: str = "drawn"  # where the parts come from: folders, column or drawn
    warnings: tuple[str, ...] = ()  # sentences about the source that a user should read before training
    classes: tuple[str, ...] = ()  # that the source names, with or without images; sorted
    group_rule: str | None = None  # where the groups come from, if the source itself gives them
    notes: tuple[str, ...] = ()  # sentences for the data card
    root: Path | None = None  # folder of the files; None if the images are in memory
    rendered: bool = False


def by_bytes(name: str) -> bytes:
    """Return a sort key: the UTF-8 bytes, whose order is the same on every platform and in every locale."""
    return name.encode("utf-8", "surrogatepass")
