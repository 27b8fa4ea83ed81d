"""Batches are the same numbers wherever the images lie."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.training.trial_data import TrialData, on_device

CPU = torch.device("cpu")


def stored(kind: Any) -> TrialData:
    rng = np.random.default_rng(0)
    images = rng.integers(0, np.iinfo(kind).max, (12, 8, 8, 3), endpoint=True).astype(kind)
    rows = np.arange(12)
    return TrialData(images, rows % 2, rows.astype(np.uint64), rows[:8], rows[8:], ("a", "b"))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_images_that_live_on_the_device_give_the_same_batches(kind: Any) -> None:
    data = stored(kind)
    resident = on_device(data.images, CPU, free=10**9)
    assert resident is not None
    rows = np.array([3, 3, 0, 11])
    moved = dataclasses.replace(data, resident=resident)
    assert torch.equal(moved.batch(rows, CPU), data.batch(rows, CPU))
    assert moved.batch(rows, CPU).is_contiguous()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_images_stay_where_the_device_has_no_room(kind: Any) -> None:
    data = stored(kind)
    needed = data.images.size * (4 if kind == np.uint16 else 1)
    assert on_device(data.images, CPU, free=4 * needed - 4) is None
    assert on_device(data.images, CPU, free=4 * needed) is not None


def test_a_files_map_moves_without_a_warning(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", stored(np.uint8).images)
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resident = on_device(images, CPU, free=10**9)
    assert resident is not None
    assert np.array_equal(resident.numpy(), images)
