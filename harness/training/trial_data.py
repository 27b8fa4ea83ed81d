"""What a trial trains on: images as stored, rows of a split, and batches of one fixed shape."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.config.parameters import Augmentation
from harness.data import augmentation
from harness.errors import DataError

RESIDENT_SHARE = 0.25  # of a device's free memory: the rest is for models and steps


@dataclass(frozen=True)
class TrialData:
    """Images and one split of them.

    `images` is (N, S, S, 3), uint8 or uint16, usually a memory map. `labels` is (N,) class indices, with -1
    where this process must not know them (the test part). `train` and `validation` are row numbers. `classes` are the
    names of the class indices, in their order.
    """

    images: NDArray[np.uint8] | NDArray[np.uint16]
    labels: NDArray[np.int64]
    keys: NDArray[np.uint64]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    classes: tuple[str, ...]
    source: str = ""  # names the content of `images`; without it nothing is shared between trials
    resident: torch.Tensor | None = None  # the images again, on the device that trains; see `on_device`

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @cached_property
    def scale(self) -> float:
        """Full scale of the stored numbers."""
        return 255.0 if self.images.dtype == np.uint8 else 65535.0

    def batch(self, rows: NDArray[np.int64], device: torch.device) -> torch.Tensor:
        """The images of these rows, (B, 3, S, S), float32 in [0, 1]."""
        if self.resident is not None:
            chosen = self.resident[torch.from_numpy(rows).to(self.resident.device)].to(device).float()
            return chosen.permute(0, 3, 1, 2).contiguous().div_(self.scale)
        stored = np.ascontiguousarray(self.images[rows])
        if stored.dtype == np.uint16:
            tensor = torch.from_numpy(stored.astype(np.float32)).to(device)
        else:
            tensor = torch.from_numpy(stored).to(device).float()
        return tensor.permute(0, 3, 1, 2).contiguous().div_(self.scale)


def on_device(images: NDArray[Any], device: torch.device, free: int) -> torch.Tensor | None:
    """All images on the device, or None where they do not belong there: then batches travel one by one.

    Args:
        images: (N, S, S, 3), uint8 or uint16; the latter become float32, which holds each of their values.
        free: bytes that are free on the device; images may take RESIDENT_SHARE of them.
    """
    numbers = 4 if images.dtype == np.uint16 else 1
    if images.size * numbers > RESIDENT_SHARE * free:
        return None
    # A copy: torch warns of arrays that cannot be written, such as a file's map.
    return torch.from_numpy(np.array(images, np.float32 if images.dtype == np.uint16 else np.uint8)).to(device)


def epoch_order(train: NDArray[np.int64], seed: int, epoch: int, batch_size: int) -> NDArray[np.int64]:
    """The rows of one epoch in training order, (steps, batch_size); the tail that fills no batch is dropped.

    Every forward pass has one batch shape, since several backbones are not bit-equal across shapes.

    Raises:
        DataError: the training part is smaller than one batch.
    """
    steps = _steps(train, batch_size)
    order = np.random.Generator(np.random.PCG64([seed, epoch])).permutation(train)
    return order[: steps * batch_size].reshape(steps, batch_size)


def balanced_order(
    train: NDArray[np.int64], labels: NDArray[np.int64], seed: int, epoch: int, batch_size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """As `epoch_order` with as many steps, but every class equally often: small classes repeat, large ones are sampled.

    Of a class every image comes before any comes again. Classes without a training image are left out.

    Args:
        labels: (N,) class indices of all images, read at the rows of `train`.

    Returns:
        The rows, and how often each came before in this epoch, both (steps, batch_size).

    Raises:
        DataError: the training part is smaller than one batch.
    """
    steps = _steps(train, batch_size)
    rng = np.random.Generator(np.random.PCG64([seed, epoch]))
    present = rng.permutation(np.unique(labels[train]))  # the first ones get an image more where it does not come out
    wanted = np.full(len(present), steps * batch_size // len(present))
    wanted[: steps * batch_size % len(present)] += 1
    rows, rounds = [], []
    for label, count in zip(present, wanted, strict=True):
        own = train[labels[train] == label]
        times = -(-count // len(own))
        rows.append(np.concatenate([rng.permutation(own) for _ in range(times)])[:count])
        rounds.append(np.repeat(np.arange(times), len(own))[:count])
    order = rng.permutation(steps * batch_size)
    shape = (steps, batch_size)
    return np.concatenate(rows)[order].reshape(shape), np.concatenate(rounds)[order].reshape(shape)


def _steps(train: NDArray[np.int64], batch_size: int) -> int:
    """Whole batches in the training part; raises DataError where there is none."""
    if len(train) < batch_size:
        raise DataError(
            f"batch_size must not exceed the training part, but got {batch_size} for {len(train)} images; "
            "take a smaller batch_size or a larger limit."
        )
    return len(train) // batch_size


def padded(rows: NDArray[np.int64], batch_size: int) -> NDArray[np.int64]:
    """The rows in batches of one shape, (batches, batch_size): the last is filled with the first row."""
    missing = -len(rows) % batch_size
    return np.concatenate([rows, np.repeat(rows[:1], missing)]).reshape(-1, batch_size)


def draw_views(
    data: TrialData,
    recipe: Augmentation,
    seed: int,
    epoch: int,
    rows: NDArray[np.int64],
    device: torch.device,
    occurrence: NDArray[np.int64] | int = 0,
) -> torch.Tensor:
    """The views of these rows in this epoch, (B, 3, S, S), float32 in [0, 1]; `occurrence` as `views.draw`'s."""
    drawn = augmentation.draw(recipe, seed, epoch, data.keys[rows], occurrence)
    return augmentation.apply(recipe, data.batch(rows, device), drawn)
