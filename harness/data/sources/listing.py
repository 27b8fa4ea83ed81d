"""What every source hands over before a pixel is read: one Sample for each image, and a way to its bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PARTS = ("train", "validation", "test")

Stored = Path | Image.Image | NDArray[np.uint8]  # where the bytes are, or the pixels themselves


@dataclass(frozen=True)
class Sample:
    """One image: its name below the root (clean, with /), its class, and what the user fixed about it."""

    path: str
    label: str
    group: str = ""
    fixed_split: str = ""  # "", train, validation or test


@dataclass(frozen=True)
class Listing:
    """All images of one source, sorted by path."""

    name: str
    source: str  # as the card shows it
    samples: tuple[Sample, ...]
    fetch: Callable[[int], Stored]  # of a sample's index
    ignored: Counter[str] = field(default_factory=Counter)
    classes: tuple[str, ...] = ()  # that the source names, used or not; sorted
    group_rule: str | None = None  # where groups come from, when the source itself gives them
    notes: tuple[str, ...] = ()
    root: Path | None = None  # of the files; None where images lie in memory
    rendered: bool = False


def by_bytes(name: str) -> bytes:
    """Sort key: the order of UTF-8 bytes, the same on every platform and in every locale."""
    return name.encode("utf-8", "surrogatepass")
