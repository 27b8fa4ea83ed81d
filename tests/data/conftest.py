"""Small folders of generated images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.data import make_array, scan
from harness.data.sources.listing import Listing

Maker = Callable[..., Path]


@pytest.fixture
def write_image() -> Maker:
    """write_image(path, seed=0, size=(12, 10)): an 8-bit RGB image of noise, its folders made."""

    def write(path: Path, seed: int = 0, size: tuple[int, int] = (12, 10)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return write


@pytest.fixture
def cells(tmp_path: Path, write_image: Maker) -> Path:
    """Two classes of twelve different images each, from six slides."""
    root = tmp_path / "cells"
    for number in range(24):
        label = ("blast", "resting")[number % 2]
        write_image(root / label / f"slide{number // 4}_{number:02d}.png", seed=number)
    return root


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    path = tmp_path / "cache"
    path.mkdir()
    return path


@pytest.fixture
def files_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of all images that are read from here on, by scans and for arrays."""
    rows_read: list[int] = []
    read_images = scan.read_images

    def read(listing: Listing, slots: Mapping[int, int], *rest: Any) -> None:
        rows_read.extend(slots)
        read_images(listing, slots, *rest)

    monkeypatch.setattr(scan, "read_images", read)
    monkeypatch.setattr(make_array, "read_images", read)
    return rows_read
