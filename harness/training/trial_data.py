"""The data of a trial: stored images, the rows of a split, and batches of one fixed shape."""

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

RESIDENT_SHARE = 0.25  # of a device's free memory that images may take: models and training steps need the rest


@dataclass(frozen=True)
class TrialData:
    """Images and one split of them.

    `images` is (N, S, S, C), uint8 or uint16, usually a memory map. `labels` holds (N,) class indices; it is -1 for
    images of the test part, whose labels are hidden from this process. `keys` holds (N,) image keys, see
    `harness.data.augmentation.image_keys`. `train` and `validation` are row numbers. `classes` holds the names of the
    classes in the order of their indices.
    """

    images: NDArray[np.uint8] | NDArray[np.uint16]
    labels: NDArray[np.int64]
    keys: NDArray[np.uint64]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    classes: tuple[str, ...]
    source: str = ""  # identifies the content of `images`; if it is empty, trials share no activations
    resident: torch.Tensor | None = None  # a copy of the images on the device that trains; see `on_device`

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def channels(self) -> int:
        """Return the number of channels of every image, C."""
        return int(self.images.shape[3])

    @cached_property
    def scale(self) -> float:
        """Return the largest value that the stored type represents: white."""
        return 255.0 if self.images.dtype == np.uint8 else 65535.0

    def batch(self, rows: NDArray[np.int64], device: torch.device) -> torch.Tensor:
        """Return the images of these rows, (B, C, S, S), float32 in [0, 1]."""
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
    """Copy all images to the device; return None if they take too much of its memory.

    Without such a copy, each batch is sent to the device when it is needed.

    Args:
        images: (N, S, S, C), uint8 or uint16. uint16 images become float32, which represents each of their values.
        free: free bytes on the device; the images may take RESIDENT_SHARE of them.
    """
    bytes_a_value = 4 if images.dtype == np.uint16 else 1
    if images.size * bytes_a_value > RESIDENT_SHARE * free:
        return None
    # A copy, because torch warns about read-only arrays such as memory maps.
    return torch.from_numpy(np.array(images, np.float32 if images.dtype == np.uint16 else np.uint8)).to(device)


def epoch_order(train: NDArray[np.int64], seed: int, epoch: int, batch_size: int) -> NDArray[np.int64]:
    """Return the rows of one epoch in training order, (steps, batch_size).

    Rows that do not fill a last batch are dropped: every forward pass has one batch shape, because several backbones
    are not bit-equal across shapes.

    Raises:
        DataError: the training part is smaller than one batch.
    """
    steps = _steps(train, batch_size)
    order = np.random.Generator(np.random.PCG64([seed, epoch])).permutation(train)
    return order[: steps * batch_size].reshape(steps, batch_size)


def balanced_order(
    train: NDArray[np.int64], labels: NDArray[np.int64], seed: int, epoch: int, batch_size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of one epoch in which every class occurs equally often; it has as many steps as `epoch_order`'s.

    Images of small classes are repeated, and large classes are sampled. All images of a class occur once before any of
    them occurs again. Classes without a training image are left out.

    Args:
        labels: (N,) class indices of all images.

    Returns:
        The rows, and how often each occurred before in this epoch, both (steps, batch_size).

    Raises:
        DataError: the training part is smaller than one batch.
    """
    steps = _steps(train, batch_size)
    rng = np.random.Generator(np.random.PCG64([seed, epoch]))
    # In random order, because the first classes get one image more if the number of images is not divisible.
    present = rng.permutation(np.unique(labels[train]))
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
    """Return the number of whole batches in the training part; raise DataError if there is none."""
    if len(train) < batch_size:
        raise DataError(
            f"batch_size must not exceed the number of training images, but got {batch_size} for {len(train)} images; "
            "use a smaller batch_size or a larger limit."
        )
    return len(train) // batch_size


def padded(rows: NDArray[np.int64], batch_size: int) -> NDArray[np.int64]:
    """Divide the rows into batches of one shape, (batches, batch_size); the last batch is filled with the first row."""
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
    """Return the augmented views of these rows in this epoch, (B, C, S, S), float32 in [0, 1].

    `occurrence` is that of `harness.data.augmentation.draw`.
    """
    drawn = augmentation.draw(recipe, seed, epoch, data.keys[rows], occurrence, data.channels)
    return augmentation.apply(recipe, data.batch(rows, device), drawn)
