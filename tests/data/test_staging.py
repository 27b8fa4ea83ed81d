"""Images are decoded once: the scan stages them at the sizes that are asked for, and arrays are made of them."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from harness.config.data import DataConfig
from harness.data import array_file
from harness.data.dataset import Dataset, arrays, open_dataset
from harness.data.decoding import decode
from harness.data.decoding.rules import ReadingRules
from harness.data.staging import Staging
from harness.errors import ResourceError


def config_of(root: Path, **options: Any) -> DataConfig:
    return DataConfig.model_validate({"source": {"folder": str(root)}, **options})


def age(root: Path) -> None:
    for path in root.rglob("*.*"):
        os.utime(path, (1_700_000_000,) * 2)  # the same time at every call, so that no file looks changed


def staging_of(dataset: Dataset, config: DataConfig, size: int, cache: Path) -> Staging:
    return Staging(dataset._scan.listing, config, size, cache=cache)


def check(dataset: Dataset, images: np.ndarray, cells: Path, size: int) -> None:
    assert len(images) == len(dataset.table)
    for row, path in enumerate(dataset.table["path"]):
        wanted = decode.decode(cells / path, size=size)
        if images.dtype == np.uint16 and wanted.dtype == np.uint8:
            wanted = wanted.astype(np.uint16) * np.uint16(257)
        assert (images[row] == wanted).all(), path


def test_an_image_is_read_once_for_the_scan_and_the_arrays_of_all_sizes(
    cells: Path, cache: Path, files_read: list[int]
) -> None:
    config = config_of(cells)
    dataset = open_dataset(config, cache=cache, sizes=(16, 24))
    for size in (16, 24):
        check(dataset, np.load(arrays(dataset, config, size, cache=cache)), cells, size)
    assert len(files_read) == 24 and not list((cache / "staged").glob("*/*"))


@pytest.mark.parametrize("options", [{"resize": "pad", "background": [9, 8, 7]}, {"resize": "crop"}])
def test_staged_images_are_resized_as_the_study_says(cells: Path, cache: Path, options: dict[str, Any]) -> None:
    config = config_of(cells, **options)
    dataset = open_dataset(config, cache=cache, sizes=(16,))
    images = np.load(arrays(dataset, config, 16, cache=cache))
    kind, colour = config.resize, config.background
    rules = ReadingRules(background=colour)
    wanted = decode.decode(cells / dataset.table["path"][5], rules, size=16, resize=kind)
    assert (images[5] == wanted).all()


def test_one_deep_image_or_one_that_is_skipped_changes_no_other_and_costs_no_second_reading(
    cells: Path, cache: Path, files_read: list[int]
) -> None:
    tifffile.imwrite(cells / "blast/m.tif", np.arange(0, 25600, 100, dtype=np.uint16).reshape(16, 16))
    (cells / "blast/a.png").write_bytes(b"")
    config = config_of(cells, on_bad="skip")
    dataset = open_dataset(config, cache=cache, sizes=(16,))
    images = np.load(arrays(dataset, config, 16, cache=cache))
    assert images.dtype == np.uint16 and len(images) == 25
    check(dataset, images, cells, 16)
    assert len(files_read) == 26


def test_a_deep_data_set_is_staged_as_such(tmp_path: Path, cache: Path, files_read: list[int]) -> None:
    for number in range(8):
        path = tmp_path / "d" / "ab"[number % 2] / f"{number}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, np.full((9, 9), 1000 * number, dtype=np.uint16))
    config = config_of(tmp_path / "d")
    dataset = open_dataset(config, cache=cache, sizes=(16,))
    check(dataset, np.load(arrays(dataset, config, 16, cache=cache)), tmp_path / "d", 16)
    assert len(files_read) == 8


def test_what_is_staged_is_what_the_scan_saw_although_the_file_changes(
    cells: Path, cache: Path, write_image: Callable[..., Path]
) -> None:
    config = config_of(cells)
    wanted = decode.decode(cells / "blast/slide0_00.png", size=16)
    dataset = open_dataset(config, cache=cache, sizes=(16,))
    write_image(cells / "blast/slide0_00.png", seed=1234)
    assert (np.load(arrays(dataset, config, 16, cache=cache))[0] == wanted).all()


@pytest.mark.parametrize("damage", ["changed", "cut off", "gone", "index changed", "index cut off", "index gone"])
def test_only_staged_rows_that_are_damaged_are_read_again(
    cells: Path, cache: Path, files_read: list[int], damage: str
) -> None:
    age(cells)
    config = config_of(cells)
    dataset = open_dataset(config, cache=cache, sizes=(16,))  # and the command is killed here
    staging = staging_of(dataset, config, 16, cache)
    path = staging.folder / "index" if damage.startswith("index") else staging.file(deep=False)
    data = bytearray(path.read_bytes())
    if damage.endswith("gone"):
        path.unlink()
    elif damage.endswith("cut off"):
        path.write_bytes(data[:-10])
    else:
        data[-45] ^= 1  # in the index, the slot of its last record
        path.write_bytes(data)
    files_read.clear()
    again = open_dataset(config, cache=cache, sizes=(16,))
    check(again, np.load(arrays(again, config, 16, cache=cache)), cells, 16)
    assert len(files_read) == (24 if damage.endswith("gone") else 1)


def test_a_folder_that_changed_after_a_kill_has_the_rows_of_its_new_order(
    cells: Path, cache: Path, write_image: Callable[..., Path], files_read: list[int]
) -> None:
    age(cells)
    config = config_of(cells)
    open_dataset(config, cache=cache, sizes=(16,))  # and the command is killed here
    (cells / "blast/slide1_04.png").unlink()
    write_image(cells / "blast/added.png", seed=77)
    write_image(cells / "resting/added.png", seed=78)
    (cells / "blast/slide0_00.png").rename(cells / "resting/zzz.png")
    age(cells)
    files_read.clear()
    dataset = open_dataset(config, cache=cache, sizes=(16,))
    check(dataset, np.load(arrays(dataset, config, 16, cache=cache)), cells, 16)
    assert len(files_read) == 3  # those that are new or have a new name


def test_staging_that_another_process_holds_is_not_waited_for_by_a_scan(
    cells: Path, cache: Path, files_read: list[int]
) -> None:
    config = config_of(cells)
    other = staging_of(open_dataset(config, cache=cache), config, 16, cache)
    with other.held(wait=True):
        dataset = open_dataset(config, cache=cache, sizes=(16,))
    check(dataset, np.load(arrays(dataset, config, 16, cache=cache)), cells, 16)


def test_a_start_reads_a_sample_of_the_rows_and_the_doctor_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array_file, "_SMALL", 0)
    images = np.random.default_rng(0).integers(0, 256, (5000, 16, 16, 3), dtype=np.uint8)
    path = tmp_path / "array.npy"
    np.save(path, images)
    array_file.write_checks(
        path,
        array_file.header_of(images.shape, images.dtype),
        np.array([array_file.zlib.crc32(row.tobytes()) for row in images], np.uint32),
    )
    summed: list[int] = []
    checksum = array_file.zlib.crc32
    monkeypatch.setattr(array_file.zlib, "crc32", lambda data: summed.append(len(data)) or checksum(data))
    assert array_file.is_sound(path, images.shape, images.dtype)
    assert summed.count(16 * 16 * 3) == array_file.SAMPLE
    assert not array_file.is_sound(path, (5000, 16, 16, 3), np.dtype(np.uint16))
    assert array_file.is_whole(path)
    data = bytearray(path.read_bytes())
    data[array_file.HEADER + 2500 * 768] ^= 1
    path.write_bytes(data)
    assert not array_file.is_whole(path)
    path.write_bytes(data[:-768])
    assert not array_file.is_sound(path, images.shape, images.dtype)


def test_a_disk_that_is_too_full_is_told_when_the_array_is_needed(
    cells: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(cells)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    dataset = open_dataset(config, cache=cache, sizes=(16,))
    with pytest.raises(ResourceError, match=r"need .* MiB .* are free"):
        arrays(dataset, config, 16, cache=cache)


def test_what_was_staged_a_month_ago_is_removed(cells: Path, tmp_path: Path, cache: Path) -> None:
    shutil.copytree(cells, tmp_path / "others")
    staged = []
    for root in (cells, tmp_path / "others"):
        config = config_of(root)
        staged.append(staging_of(open_dataset(config, cache=cache, sizes=(16,)), config, 16, cache).folder)
    assert all((folder / "index").exists() for folder in staged)
    for path in staged[0].iterdir():
        os.utime(path, (time.time() - 40 * 86400,) * 2)
    open_dataset(config_of(tmp_path / "others", background=[0, 0, 0]), cache=cache, sizes=(16,))
    assert not staged[0].exists() and staged[1].exists()
