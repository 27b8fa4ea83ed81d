"""read_image gives what a study trains on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import as_tiff
from PIL import Image

import harness
from harness import read_image
from harness.config.data import DataConfig
from harness.config.reading_keys import READING_KEYS
from harness.data.dataset import arrays, open_dataset
from harness.errors import ConfigError, DataError

RANDOM = np.random.default_rng(6)


def test_pixels_are_the_very_ones_of_the_array_that_is_trained_on(tmp_path: Path, cache: Path) -> None:
    for number in range(6):
        folder = tmp_path / "d" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        samples = RANDOM.integers(0, 4096, (3, 20, 31), dtype=np.uint16)
        (folder / f"{number}.tif").write_bytes(as_tiff(samples, imagej=True, metadata={"axes": "CYX"}))
    Image.fromarray(RANDOM.integers(0, 256, (40, 30), dtype=np.uint8)).save(tmp_path / "d/a/grey.png")
    keys: dict[str, Any] = {"image_size": 24, "resize": "pad", "bit_depth": 12, "background": (9, 90, 200)}
    config = DataConfig.model_validate({"source": {"folder": str(tmp_path / "d")}, **keys})
    dataset = open_dataset(config, cache=cache)
    stored = np.load(arrays(dataset, config, 24, cache=cache))
    for row, path in enumerate(dataset.table["path"]):
        pixels = read_image(tmp_path / "d" / path, **keys)
        assert pixels.dtype == np.float32 and pixels.shape == (24, 24, 3)
        assert (np.rint(pixels * 65535) == stored[row]).all(), path


def test_an_image_keeps_its_size_and_is_read_by_its_content(tmp_path: Path) -> None:
    rgb = RANDOM.integers(0, 256, (9, 14, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "x.jpg", "PNG")
    Image.fromarray(rgb).save(tmp_path / "y", "TIFF")
    for name in ("x.jpg", "y"):
        pixels = read_image(str(tmp_path / name))
        assert pixels.shape == (9, 14, 3) and np.abs(pixels * 255 - rgb).max() < 1e-4


def test_all_channels_and_single_frames_are_returned(tmp_path: Path) -> None:
    planes = RANDOM.integers(0, 60000, (5, 9, 14), dtype=np.uint16)
    path = tmp_path / "x.tif"
    path.write_bytes(as_tiff(planes, imagej=True, metadata={"axes": "CYX"}))
    assert np.abs(read_image(path, channels="all") - np.moveaxis(planes, 0, -1) / 65535).max() < 1e-6
    assert read_image(path, channels={"green": [1, 3]}, image_size=16).shape == (16, 16, 3)
    path.write_bytes(as_tiff(planes, imagej=True, metadata={"axes": "ZYX"}))
    assert np.abs(read_image(path, frames="each", frame=3)[..., 0] - planes[3] / 65535).max() < 1e-6
    with pytest.raises(DataError, match=r"x\.tif: has 5 frames.*frame=0 to 4"):
        read_image(path, frames="each")


def test_a_used_range_must_be_given(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    path.write_bytes(as_tiff(np.array([[100, 300, 500]], np.uint16)))
    assert np.abs(read_image(path, bit_depth="used", value_range=(100, 500))[0, :, 0] - [0, 0.5, 1]).max() < 1e-4
    for keys in ({"resize": "weights"}, {"resize": "weights", "image_size": 64}):
        with pytest.raises(ConfigError, match="resize must be stretch, pad or crop"):
            read_image(path, **keys)
    with pytest.raises(ConfigError, match="value_range"):
        read_image(path, bit_depth="used")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"chanels": [0, 1, 2]}, "no key chanels.*channels, frames"),
        ({"split": {}}, "no key split"),
        ({"channels": [0, 1]}, "channels: must name three channels"),
        ({"bit_depth": 13}, "bit_depth"),
        ({"image_size": "native"}, "native"),
        ({"image_size": 5}, "16..2048"),
    ],
)
def test_unknown_keys_and_values_are_refused(keys: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"(?s){words}"):
        read_image(tmp_path / "x.png", **keys)


def test_every_reading_key_of_a_study_is_known() -> None:
    others = {"source", "name", "wanted", "layout", "root", "columns", "classes", "min_images"}
    others |= {"on_bad", "dedupe", "limit", "split"}
    assert set(DataConfig.model_fields) - others == set(READING_KEYS)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(DataError, match=r"x\.heic: is a HEIC image"):
        read_image(tmp_path / "x.heic")
    with pytest.raises(DataError, match=r"none\.png: cannot be opened"):
        read_image(tmp_path / "none.png")


def test_importing_the_package_stays_light() -> None:
    code = (
        "import sys, harness; assert not {'numpy', 'PIL', 'pydantic', 'torch'} & set(sys.modules); harness.read_image"
    )
    code += "; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = harness.nothing
