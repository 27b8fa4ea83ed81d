"""Listing: what every source returns before any pixel is read: a Sample for each image, and a function to get it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PARTS = ("train", "validation", "test")

Stored = Path | Image.Image | NDArray[np.uint8]  # the file, an image that a library has opened, or the pixels


@dataclass(frozen=True)
class Sample:
    """One image: its path relative to the root (escaped, with /), its class, and the group and part that were given."""

    path: str
    label: str
    group: str = ""
    fixed_split: str = ""  # "", train, validation or test


@dataclass(frozen=True)
class Listing:
    """All images of one source, sorted by path."""

    name: str
    source: str  # as the data card shows it
    samples: tuple[Sample, ...]
    fetch: Callable[[int], Stored]  # from a sample's index
    ignored: Counter[str] = field(default_factory=Counter)  # files and folders that are not read, by reason
    classes: tuple[str, ...] = ()  # that the source names, with or without images; sorted
    group_rule: str | None = None  # where the groups come from, if the source itself gives them
    notes: tuple[str, ...] = ()  # sentences for the data card
    root: Path | None = None  # folder of the files; None if the images are in memory
    rendered: bool = False


def by_bytes(name: str) -> bytes:
    """Return a sort key: the UTF-8 bytes, whose order is the same on every platform and in every locale."""
    return name.encode("utf-8", "surrogatepass")
