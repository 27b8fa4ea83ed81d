"""What is done about near duplicates: kept together, refused or only told; and that the result is kept in the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.config.data import DataConfig
from harness.data import split
from harness.data.dataset import Dataset, arrays, open_dataset
from harness.data.understanding import findings
from harness.data.understanding.findings import Findings, look_at
from harness.data.understanding.near_duplicates import clusters
from harness.errors import DataError


def picture(seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 230, (32, 32, 3)).astype(np.uint8)


def save(path: Path, pixels: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def looked(root: Path, cache: Path, **keys: Any) -> tuple[Dataset, Findings]:
    config = DataConfig.model_validate({"source": {"folder": str(root)}, **keys})
    dataset = open_dataset(config, cache=cache)
    return dataset, look_at(dataset, arrays(dataset, config, 32, cache=cache), config, cache=cache)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of 15 images; four images of each class have a darker copy."""
    folder = tmp_path / "images"
    for number in range(30):
        save(folder / "ab"[number % 2] / f"{number:02d}.png", picture(number))
    for number in range(8):
        save(folder / "ab"[number % 2] / f"{number:02d}_copy.png", picture(number) * 0.9)
    return folder


def test_near_duplicates_stay_in_one_part_of_every_draw(root: Path, cache: Path) -> None:
    dataset, found = looked(root, cache)
    assert len(found.near) == 8
    table = dataset.with_clusters(clusters(found.near, len(dataset.table))).table
    config = DataConfig().split
    parted_without = 0
    for seed in range(8):
        first = split.draw(table, config, seed=seed)
        again = split.redraw(table, first, config, seed=seed + 100)
        plain = split.draw(dataset.table, config, seed=seed)
        for pair in found.near:
            assert first[pair.first] == first[pair.second]
            assert again[pair.first] == again[pair.second]
            parted_without += int(plain[pair.first] != plain[pair.second])
    assert parted_without > 10  # so that the draw would part them


def test_the_warning_names_pairs_and_what_is_done(root: Path, cache: Path) -> None:
    _, found = looked(root, cache)
    [warning] = found.warnings
    assert "8 pairs" in warning and "a/00.png and a/00_copy.png" in warning and "kept in one part" in warning
    _, found = looked(root, cache, dedupe={"near": "keep"})
    assert "the split may part them" in found.warnings[0]


def test_near_duplicates_with_two_labels_are_warned_of_or_refused(root: Path, cache: Path) -> None:
    save(root / "b" / "other.png", picture(0) * 0.95)  # image 0 is of class a
    dataset, found = looked(root, cache)
    assert any("two labels" in warning and "b/other.png" in warning for warning in found.warnings)
    table = dataset.with_clusters(clusters(found.near, len(dataset.table))).table
    parts = split.draw(table, DataConfig().split, seed=0)
    assert all(parts[pair.first] == parts[pair.second] for pair in found.near)
    with pytest.raises(DataError, match="one label") as refused:
        looked(root, cache, dedupe={"near": "error"})
    assert "b/other.png" in str(refused.value)


def test_near_duplicates_in_two_fixed_parts_are_warned_of_or_refused(tmp_path: Path, cache: Path) -> None:
    for part in ("train", "val", "test"):
        for number in range(6):
            save(tmp_path / "d" / part / "ab"[number % 2] / f"{number}.png", picture(hash(part) % 1000 + number))
    save(tmp_path / "d" / "test" / "a" / "leak.png", picture(77))
    save(tmp_path / "d" / "train" / "a" / "leak.png", picture(77) * 0.9)
    dataset, found = looked(tmp_path / "d", cache)
    assert any("two parts of the given split" in warning and "leak.png" in warning for warning in found.warnings)
    table = dataset.with_clusters(clusters(found.near, len(dataset.table))).table
    parts = split.draw(table, DataConfig().split, seed=0)
    assert (parts == table["fixed_split"].replace("val", "validation")).all()  # the given split stays as it is
    with pytest.raises(DataError, match="one part of the split"):
        looked(tmp_path / "d", cache, dedupe={"near": "error"})


def test_the_second_start_compares_no_images(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, first = looked(root, cache)
    monkeypatch.setattr(findings.near_duplicates, "near_duplicates", lambda *a: pytest.fail("compared again"))
    monkeypatch.setattr(findings.give_aways, "give_aways", lambda *a: pytest.fail("looked again"))
    assert looked(root, cache)[1] == first
    [stored] = (cache / "findings").glob("*.json")
    stored.write_bytes(stored.read_bytes()[:-5])
    with pytest.raises(pytest.fail.Exception):
        looked(root, cache)


def test_exact_copies_are_no_near_duplicates(root: Path, cache: Path) -> None:
    save(root / "a" / "exact.png", picture(20))
    _, found = looked(root, cache)
    assert len(found.near) == 8


def test_other_pixels_of_the_same_files_are_looked_at_anew(tmp_path: Path, cache: Path) -> None:
    for number in range(30):  # red is the same noise in pairs of files, green is not
        pixels = picture(number)
        pixels[..., 0] = picture(number // 2 * 2)[..., 0]
        save(tmp_path / "d" / "ab"[number // 2 % 2] / f"{number:02d}.png", pixels)
    assert len(looked(tmp_path / "d", cache, channels=[1, 1, 1])[1].near) == 0
    darker = [looked(tmp_path / "d", cache, channels=[0, 0, channel])[0].digest for channel in (0, 1)]
    assert darker[0] == darker[1]  # the digest of the files does not tell them apart
    save(tmp_path / "d" / "a" / "again.png", picture(0) * [0.9, 0, 0] + picture(50) * [0, 1, 1])
    assert len(looked(tmp_path / "d", cache, channels=[1, 1, 1])[1].near) == 0
    assert len(looked(tmp_path / "d", cache, channels=[0, 0, 0])[1].near) > 0
