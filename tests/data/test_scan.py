from __future__ import annotations

import os
import shutil
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.config.data import DataConfig
from harness.data.decoding import decode
from harness.data.decoding.rules import rules_of
from harness.data.memory import Memory
from harness.data.reading import to_values
from harness.data.scan import Scan, scan
from harness.errors import DataError


def scanned(root: Path, cache: Path, **options: Any) -> Scan:
    return scan(DataConfig.model_validate({"source": {"folder": str(root)}, **options}), cache=cache)


def test_every_unreadable_file_is_named_with_its_reason_in_one_error(cells: Path, cache: Path) -> None:
    (cells / "blast/empty.png").write_bytes(b"")
    (cells / "blast/page.jpg").write_bytes(b"<html>not found</html>")
    whole = (cells / "blast/slide0_00.png").read_bytes()
    (cells / "resting/cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError) as error:
        scanned(cells, cache)
    text = str(error.value)
    assert text.startswith("3 of 27 images cannot be read")
    assert "blast/empty.png: is empty" in text and "blast/page.jpg: contains HTML" in text
    assert "resting/cut.png: is truncated" in text and "on_bad: skip" in text
    found = scanned(cells, cache, on_bad="skip")
    assert len(found.images) == 24 and [path for path, _ in found.skipped] == [
        "blast/empty.png",
        "blast/page.jpg",
        "resting/cut.png",
    ]


def test_rows_stay_beside_their_samples_where_files_are_skipped(cells: Path, cache: Path) -> None:
    (cells / "blast/a_first.png").write_bytes(b"")
    found = scanned(cells, cache, on_bad="skip")
    for row, image in zip(found.rows, found.images, strict=True):
        source = found.listing.fetch(row)
        assert isinstance(source, Path) and decode.decode(source).shape[:2] == (image.facts.height, image.facts.width)
        assert source.as_posix().endswith(found.listing.samples[row].path)


def test_one_class_is_refused_with_its_name_and_count(cells: Path, cache: Path) -> None:
    shutil.rmtree(cells / "resting")
    with pytest.raises(DataError, match="one: blast with 12 images"):
        scanned(cells, cache)


def test_a_class_without_images_is_refused_by_name(cells: Path, cache: Path) -> None:
    (cells / "mitotic").mkdir()
    with pytest.raises(DataError, match=r"1 of 3 classes have none(.|\n)*mitotic"):
        scanned(cells, cache)
    (cells / "mitotic/x.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 3 classes have none(.|\n)*mitotic"):
        scanned(cells, cache, on_bad="skip")


def test_one_image_under_two_labels_is_refused_whatever_dedupe_says(cells: Path, cache: Path) -> None:
    shutil.copy(cells / "blast/slide0_00.png", cells / "resting/copy.png")
    for dedupe in ("error", "train"):
        with pytest.raises(DataError, match=r"1 pairs have two labels(.|\n)*blast/slide0_00.png = resting/copy.png"):
            scanned(cells, cache, dedupe=dedupe)


def test_equal_pixels_in_another_file_format_are_the_same_image(cells: Path, cache: Path) -> None:
    with Image.open(cells / "blast/slide0_00.png") as image:
        image.save(cells / "resting/copy.bmp")
    with pytest.raises(DataError, match="two labels"):
        scanned(cells, cache)


def test_one_image_in_two_fixed_parts_is_refused_with_the_pairs_unless_dedupe_mends_it(
    tmp_path: Path, cache: Path, write_image: Callable[..., Path]
) -> None:
    for number in range(8):
        for part in ("train", "test"):
            write_image(tmp_path / f"d/{part}/{'ab'[number % 2]}/{number}.png", seed=number + 100 * (part == "test"))
    write_image(tmp_path / "d/test/a/again.png", seed=2)
    with pytest.raises(DataError, match=r"train/a/2.png \(train\) = test/a/again.png \(test\)"):
        scanned(tmp_path / "d", cache)
    assert len(scanned(tmp_path / "d", cache, dedupe="train").images) == 17


def test_copies_inside_one_class_are_fine_when_the_split_is_drawn(cells: Path, cache: Path) -> None:
    shutil.copy(cells / "blast/slide0_00.png", cells / "blast/copy.png")
    assert len(scanned(cells, cache).images) == 25


def age(root: Path, seconds: float = 100.0) -> None:
    for path in root.rglob("*.png"):
        os.utime(path, (time.time() - seconds,) * 2)


def test_a_second_scan_reads_changed_files_only(cells: Path, cache: Path, files_read: list[int]) -> None:
    age(cells)
    first = scanned(cells, cache)
    assert sorted(files_read) == list(range(24))
    files_read.clear()
    assert scanned(cells, cache).images == first.images and not files_read
    with Image.open(cells / "blast/slide0_00.png") as image:
        image.rotate(180).save(cells / "blast/slide0_00.png")
    second = scanned(cells, cache)
    assert files_read == [0] and second.images[0].sha256 != first.images[0].sha256
    files_read.clear()
    scanned(cells, cache, background=(0, 0, 0))  # other pixels: nothing remembered counts
    assert len(files_read) == 24


def test_a_file_that_may_still_change_is_not_remembered(cells: Path, cache: Path, files_read: list[int]) -> None:
    soon = time.time() + 100
    for path in cells.rglob("*.png"):
        os.utime(path, (soon, soon))
    scanned(cells, cache)
    scanned(cells, cache)
    assert len(files_read) == 48


def memory_of(cache: Path) -> Path:
    (memory,) = (cache / "scan").glob("*.jsonl")
    return memory


def test_what_is_damaged_in_the_memory_is_read_again_and_nothing_else(
    cells: Path, cache: Path, files_read: list[int]
) -> None:
    age(cells)
    first = scanned(cells, cache)
    data = bytearray(memory_of(cache).read_bytes())
    data[300] ^= 1
    memory_of(cache).write_bytes(bytes(data))
    files_read.clear()
    assert scanned(cells, cache).images == first.images and len(files_read) == 1
    memory_of(cache).write_bytes(memory_of(cache).read_bytes()[:-40])  # as a kill during a write leaves it
    files_read.clear()
    assert scanned(cells, cache).images == first.images and len(files_read) == 1
    files_read.clear()
    assert scanned(cells, cache).images == first.images and not files_read
    memory_of(cache).write_bytes(b"")
    assert scanned(cells, cache).images == first.images and len(files_read) == 24


def test_the_memory_does_not_grow_with_every_change(cells: Path, cache: Path, files_read: list[int]) -> None:
    found = scanned(cells, cache)
    for seconds in range(20):
        age(cells, 100 + seconds)
        memory = Memory(found.listing, rules_of(DataConfig()).cache_key(), cache=cache)
        for row in memory.unknown():
            memory.about_to_read(row)
            memory.keep(row, to_values(found.images[row]))
        memory.flush()
        memory.tidy()
    assert 24 <= len(memory_of(cache).read_bytes().split()) < 8 * 24 * 2
    files_read.clear()
    assert scanned(cells, cache).images == found.images and not files_read


def test_progress_is_told_up_to_the_last_image(cells: Path, cache: Path) -> None:
    told: list[tuple[int, int]] = []
    scan(DataConfig.model_validate({"source": {"folder": str(cells)}}), cache=cache, progress=lambda *a: told.append(a))
    assert told[-1] == (24, 24) and told == sorted(told)


def test_a_thousand_files_are_scanned_in_seconds_and_little_memory(tmp_path: Path, cache: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(1000):
        path = tmp_path / f"d/{'abcd'[number % 4]}/{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (96, 96, 3), dtype=np.uint8)).save(path)
    start = time.monotonic()
    scanned(tmp_path / "d", cache)
    assert time.monotonic() - start < 5
    tracemalloc.start()
    scanned(tmp_path / "d", cache, background=(0, 0, 0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6


def test_a_study_that_was_stored_and_read_again_has_the_same_key_of_its_pixels() -> None:
    for given in ({}, {"max_megapixels": 80}, {"background": [1, 2, 3]}, {"channels": {"red": 0, "green": [1, 3]}}):
        config = DataConfig.model_validate(given)
        again = DataConfig.model_validate(config.model_dump(mode="json"))
        assert rules_of(config).cache_key() == rules_of(again).cache_key()
