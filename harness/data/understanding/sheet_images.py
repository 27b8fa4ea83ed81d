"""The images of a contact sheet: some of every class, as the model will see them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from harness.config.parameters import Augmentation
from harness.data.augmentation import apply, draw, image_keys
from harness.data.composite import composite
from harness.data.dataset import Dataset
from harness.data.understanding.near_duplicates import NearPair

COLUMNS = 6  # images of a class
_PAIRS = 12  # near duplicates

Picture = NDArray[np.uint8]  # (S, S, 3); a composite of images that have not three channels
Pixels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True)
class Strip:
    """The shown images of one class: (as the model sees it, one augmented view, the file's name) of each."""

    name: str
    count: int
    images: list[tuple[Picture, Picture, str]]


@dataclass(frozen=True)
class NearStrip:
    """Two images that show nearly the same, each with its name; `similarity` as in NearPair."""

    first: tuple[Picture, str]
    second: tuple[Picture, str]
    similarity: float


def strips_of(dataset: Dataset, images: Pixels, recipe: Augmentation, seed: int) -> list[Strip]:
    """Return up to COLUMNS images of every class, drawn at random, each with its view of the first epoch.

    Args:
        images: (N, S, S, channels), the array of the data set's images.
        seed: of the draw and of the views.
    """
    table = dataset.table
    labels = table["label"].to_numpy(np.int64)
    keys = image_keys(list(table["sha256"]))
    random = np.random.default_rng(seed)
    strips = []
    for label, name in enumerate(dataset.classes):
        own = np.flatnonzero(labels == label)
        rows = np.sort(random.permutation(own)[:COLUMNS])
        fractions = _fractions(images[rows])
        batch = torch.from_numpy(fractions).permute(0, 3, 1, 2)
        views = (
            apply(recipe, batch, draw(recipe, seed, 1, keys[rows], channels=batch.shape[1])).permute(0, 2, 3, 1).numpy()
        )
        shown = zip(map(_picture, fractions), map(_picture, views), table["path"].iloc[rows], strict=True)
        strips.append(Strip(name, len(own), list(shown)))
    return strips


def near_strips(dataset: Dataset, images: Pixels, near: list[NearPair]) -> list[NearStrip]:
    """Return the first near duplicates as pictures."""

    def shown(row: int) -> tuple[Picture, str]:
        return _picture(_fractions(images[row])), str(dataset.table["path"].iloc[row])

    return [NearStrip(shown(pair.first), shown(pair.second), pair.similarity) for pair in near[:_PAIRS]]


def _fractions(images: Pixels) -> NDArray[np.float32]:
    """Return pixels in [0, 1]."""
    return images.astype(np.float32) / np.float32(65535 if images.dtype == np.uint16 else 255)


def _picture(image: NDArray[np.float32]) -> Picture:
    return composite(np.rint(image * 255).clip(0, 255).astype(np.uint8))
