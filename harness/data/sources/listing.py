"""Listing: what every source returns before any pixel is read: a Sample for each image, and a function to get it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.errors import DataError

PARTS = ("train", "validation", "test")
# `Listing.split_from` in words
SPLIT_FROM = {"folders": "from the folders", "column": "from a column of the table", "drawn": "drawn at random"}


@dataclass(frozen=True)
class Frame:
    """One frame of a file that has several, counted from 0."""

    path: Path
    number: int

    @property
    def name(self) -> str:
        return f"{self.path.name} frame {self.number}"


# The file or a frame of it, an image that a library has opened, or the pixels (H, W, C).
Stored = Path | Frame | Image.Image | NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, slots=True)  # a large data set has very many
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

    def add(self, reason: str, example: str, label: str = "", count: int = 1) -> None:
        """Count `count` files or folders; the first one of a reason and class is kept as the example."""
        before, first = self._found.get((reason, label), (0, example))
        self._found[reason, label] = before + count, first

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
    reading: tuple[str, ...] = ()  # sentences on what was assumed to read the source; shown with every refusal too
    root: Path | None = None  # folder of the files; None if the images are in memory
    rendered: bool = False


@contextmanager
def told(reading: Sequence[str]) -> Iterator[None]:
    """Add to every DataError inside what was assumed to read the source (`Listing.reading`)."""
    try:
        yield
    except DataError as error:
        if not reading:
            raise
        raise DataError(f"{error}\nHow the data were read:\n" + "\n".join(f"  - {line}" for line in reading)) from None


def by_bytes(name: str) -> bytes:
    """Return a sort key: the UTF-8 bytes, whose order is the same on every platform and in every locale."""
    return name.encode("utf-8", "surrogatepass")
