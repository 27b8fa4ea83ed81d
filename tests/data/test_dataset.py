from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from harness.config.data import DataConfig
from harness.data import split
from harness.data.card import data_card
from harness.data.dataset import COLUMNS, Dataset, arrays, open_dataset
from harness.data.decoding import decode
from harness.data.sources import rendered, rendered_cells
from harness.errors import DataError, ResourceError


def config_of(root: Path, **options: Any) -> DataConfig:
    return DataConfig.model_validate({"source": {"folder": str(root)}, **options})


def test_row_i_of_the_table_is_image_i_of_the_array(cells: Path, cache: Path) -> None:
    config = config_of(cells)
    dataset = open_dataset(config, cache=cache)
    images = np.load(arrays(dataset, config, 16, cache=cache), mmap_mode="r")
    assert list(dataset.table.columns) == list(COLUMNS) and images.shape == (24, 16, 16, 3) and images.dtype == np.uint8
    for row in (0, 11, 12, 23):
        wanted = decode.decode(cells / dataset.table["path"][row], size=16)
        assert (images[row] == wanted).all()
        assert dataset.classes[dataset.table["label"][row]] == dataset.table["path"][row].split("/")[0]
    assert (dataset.name, dataset.rendered) == ("cells", False)


def test_the_digest_does_not_depend_on_where_the_folder_lies(cells: Path, tmp_path: Path, cache: Path) -> None:
    here = open_dataset(config_of(cells), cache=cache)
    shutil.copytree(cells, tmp_path / "elsewhere/cells")
    assert open_dataset(config_of(tmp_path / "elsewhere/cells"), cache=cache).digest == here.digest


@pytest.mark.parametrize("change", ["bytes", "name", "label", "missing"])
def test_the_digest_changes_with_bytes_names_and_labels(cells: Path, cache: Path, change: str) -> None:
    before = open_dataset(config_of(cells), cache=cache).digest
    path = cells / "blast/slide0_00.png"
    if change == "bytes":
        path.write_bytes(path.read_bytes() + b"\0")
    elif change == "name":
        path.rename(path.with_name("slide0_99.png"))
    elif change == "label":
        path.rename(cells / "resting" / path.name)
    else:
        path.unlink()
    assert open_dataset(config_of(cells), cache=cache).digest != before


def test_the_digest_changes_with_the_group_rule(cells: Path, cache: Path) -> None:
    ways = [None, r"slide(\d+)", r"slide\d+"]
    assert len({open_dataset(config_of(cells, split={"group": way}), cache=cache).digest for way in ways}) == 3


def test_groups_come_from_the_file_name_by_first_parenthesis_or_whole_match(cells: Path, cache: Path) -> None:
    table = open_dataset(config_of(cells, split={"group": r"slide(\d+)"}), cache=cache).table
    assert set(table["group"]) == set("012345")
    table = open_dataset(config_of(cells, split={"group": r"slide\d+"}), cache=cache).table
    assert set(table["group"]) == {f"slide{i}" for i in range(6)}


def test_a_group_rule_that_fits_some_names_only_lists_the_others(
    cells: Path, cache: Path, write_image: Callable[..., Path]
) -> None:
    write_image(cells / "blast/nameless.png", seed=99)
    with pytest.raises(DataError, match=r"it matches 24 of 25(.|\n)*blast/nameless.png"):
        open_dataset(config_of(cells, split={"group": r"slide(\d+)"}), cache=cache)
    with pytest.raises(DataError, match="must be a regular expression"):
        open_dataset(config_of(cells, split={"group": "slide("}), cache=cache)


def test_an_array_is_made_once_and_not_for_another_size_or_policy(
    cells: Path, cache: Path, files_read: list[int]
) -> None:
    config = config_of(cells)
    dataset = open_dataset(config, cache=cache)
    first = arrays(dataset, config, 16, cache=cache)
    assert arrays(dataset, config, 24, cache=cache) != first
    assert arrays(dataset, config_of(cells, resize="pad"), 16, cache=cache) != first
    files_read.clear()
    assert arrays(dataset, config, 16, cache=cache) == first and not files_read
    assert not os.access(first, os.W_OK) or os.geteuid() == 0
    assert not first.stat().st_mode & 0o222


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "other"])
def test_a_damaged_array_is_made_again(cells: Path, cache: Path, damage: str) -> None:
    config = config_of(cells)
    dataset = open_dataset(config, cache=cache)
    path = arrays(dataset, config, 16, cache=cache)
    whole = path.read_bytes()
    path.chmod(0o644)
    if damage == "other":
        np.save(path, np.zeros((3, 3)))
    else:
        flipped = bytearray(whole)
        flipped[-5] ^= 1
        path.write_bytes({"truncated": whole[:-100], "flipped": bytes(flipped), "empty": b""}[damage])
    assert arrays(dataset, config, 16, cache=cache).read_bytes() == whole


def test_an_interrupted_array_leaves_nothing_that_could_be_taken_for_one(
    cells: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(cells)
    dataset = open_dataset(config, cache=cache)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        arrays(dataset, config, 16, cache=cache, progress=stop)
    assert not list((cache / "images").glob("*.npy")) and not list((cache / "images").glob(".*.part"))


def test_one_deep_image_makes_the_array_16_bit_and_scales_the_others(cells: Path, cache: Path) -> None:
    tifffile.imwrite(cells / "blast/z.tif", np.arange(0, 25600, 100, dtype=np.uint16).reshape(16, 16))
    config = config_of(cells)
    dataset = open_dataset(config, cache=cache)
    images = np.load(arrays(dataset, config, 16, cache=cache))
    assert images.dtype == np.uint16
    deep, shallow = dataset.table.index[dataset.table["path"] == "blast/z.tif"][0], 0
    assert (images[deep][..., 0].ravel() == np.arange(0, 25600, 100)).all()
    assert (
        images[shallow] == decode.decode(cells / dataset.table["path"][shallow], size=16).astype(np.uint16) * 257
    ).all()


def test_a_file_that_changes_after_the_scan_is_refused(
    cells: Path, cache: Path, write_image: Callable[..., Path]
) -> None:
    config = config_of(cells)
    dataset = open_dataset(config, cache=cache)
    write_image(cells / "blast/slide0_00.png", seed=1234)
    with pytest.raises(DataError, match=r"blast/slide0_00.png changed"):
        arrays(dataset, config, 16, cache=cache)


def test_a_full_disk_is_one_clear_error(cells: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(cells)
    dataset = open_dataset(config, cache=cache)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ResourceError, match=r"need .* MiB .* are free"):
        arrays(dataset, config, 16, cache=cache)


def test_the_card_counts_what_the_scan_met(cells: Path, cache: Path) -> None:
    with Image.open(cells / "blast/slide0_00.png") as image:
        exif = Image.Exif()
        exif[0x0112] = 6
        image.rotate(90, expand=True).convert("RGBA").save(cells / "blast/slide9_a.png", exif=exif)
    shutil.copy(cells / "resting/slide0_01.png", cells / "resting/slide0_copy.png")
    (cells / "notes.txt").write_text("x")
    (cells / "blast/broken.png").write_bytes(b"")
    config = config_of(cells, on_bad="skip", split={"validation": 0.25, "test": 0.25})
    dataset = open_dataset(config, cache=cache)
    parts = split.draw(dataset.table, config.split, seed=0)
    card = data_card(dataset, config, parts, 32)
    assert card["images"] == 26 and card["duplicates"] == 2  # the turned one, composited, is a copy too
    assert card["kinds"] == {"8-bit RGB PNG": 25, "8-bit RGBA PNG": 1}
    assert card["converted"] == {"EXIF orientation": 1, "alpha composited": 1}
    assert card["left_aside"] == [
        {"reason": "not an image by its suffix (.txt)", "label": "", "count": 1, "example": "notes.txt"}
    ]
    assert card["skipped"] == [{"path": "blast/broken.png", "reason": "is empty (0 bytes)"}]
    assert card["sizes"] == [{"width": 12, "height": 10, "count": 26}]
    assert [(c["name"], c["count"]) for c in card["classes"]] == [("blast", 13), ("resting", 13)]
    assert sum(card["split"].values()) == 26 and card["split"]["unused"] == 0
    assert all(c["train"] + c["validation"] + c["test"] == c["count"] for c in card["classes"])
    assert card["groups"] is None and any("No groups" in note for note in card["notes"])
    assert (card["image_size"], card["resize"], card["source"]) == (32, "stretch", "folder cells")


def test_the_card_counts_groups_of_each_part(cells: Path, cache: Path) -> None:
    config = config_of(cells, split={"group": r"slide(\d+)"})
    dataset = open_dataset(config, cache=cache)
    card = data_card(dataset, config, split.draw(dataset.table, config.split, seed=0), 32)
    assert card["groups"] == 6 and sum(card["split_groups"].values()) == 6
    assert card["group_rule"] == r"slide(\d+)"


def test_no_path_of_the_machine_is_in_table_or_card(cells: Path, tmp_path: Path, cache: Path) -> None:
    import json

    dataset = open_dataset(config_of(cells), cache=cache)
    text = json.dumps(dataset.card) + dataset.name + dataset.table.to_csv()
    assert str(tmp_path) not in text and not re.search(r"(^|,)/", text)


@pytest.fixture
def few_slides(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rendered_cells.render
    monkeypatch.setattr(rendered_cells, "render", lambda seed: whole(seed + 1, slides=10))


def test_rendered_cells_are_a_data_set_whose_group_is_the_slide(
    few_slides: None, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DataConfig()
    dataset = open_dataset(config, cache=cache)
    assert dataset.name == "rendered_cells" and dataset.rendered and dataset.classes == rendered_cells.CLASSES
    assert dataset.table["group"].nunique() == 10 and (dataset.table.groupby("group").size() == 12).all()
    images = np.load(arrays(dataset, config, 64, cache=cache))
    cells = rendered_cells.render(0)
    row = dataset.table.index[dataset.table["path"].str.contains("slide004_03")][0]
    assert (images[row] == cells.images[4 * 12 + 3]).all() and dataset.table["label"][row] == cells.labels[4 * 12 + 3]
    assert any("rendered" in note for note in dataset.card["notes"])
    monkeypatch.setattr(rendered_cells, "render", lambda seed: pytest.fail("rendered again"))
    assert open_dataset(config, cache=cache).digest == dataset.digest


def test_a_torn_cache_of_rendered_cells_is_rendered_again(few_slides: None, cache: Path) -> None:
    first = open_dataset(DataConfig(), cache=cache)
    (path,) = (cache / "rendered").glob("*.npz")
    data = path.read_bytes()
    path.chmod(0o644)
    for torn in (data[: len(data) // 2], data[:5000] + bytes([data[5000] ^ 1]) + data[5001:], b""):
        path.unlink()
        path.write_bytes(torn)
        assert open_dataset(DataConfig(), cache=cache).digest == first.digest
    assert rendered.SEED == 0


def test_real_blood_cells_are_read_and_split_by_smear(shared: Path, cache: Path, tmp_path: Path) -> None:
    root = tmp_path / "blood"
    for folder in sorted((shared / "data/rbc12/images").iterdir()):
        (root / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[::15]:
            shutil.copy(file, root / folder.name / file.name)
    config = config_of(root, split={"group": r"smear(\d+)"})
    dataset: Dataset = open_dataset(config, cache=cache)
    assert len(dataset.classes) == 12 and len(dataset.table) > 1100
    assert (dataset.table["kind"] == "8-bit RGB JPEG").all() and (dataset.table["width"] == 80).all()
    parts = split.draw(dataset.table, config.split, seed=0, classes=dataset.classes)
    smears = [set(dataset.table["group"][parts == part]) for part in ("train", "validation", "test")]
    assert not (smears[0] & smears[1] or smears[0] & smears[2] or smears[1] & smears[2])
    images = np.load(arrays(dataset, config, 64, cache=cache), mmap_mode="r")
    assert images.shape == (len(dataset.table), 64, 64, 3) and images[:50].std() > 10


def test_a_disk_that_fills_while_images_are_written_is_one_clear_error(cells: Path, cache: Path) -> None:
    """In a process of its own, whose files may not grow beyond 100 kB."""
    code = (
        "import resource, sys; from pathlib import Path; from harness.config.data import DataConfig;"
        "from harness.data.dataset import arrays, open_dataset; from harness.errors import ResourceError\n"
        "config = DataConfig.model_validate({'source': {'folder': sys.argv[1]}}); cache = Path(sys.argv[2])\n"
        "dataset = open_dataset(config, cache=cache)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: arrays(dataset, config, 128, cache=cache)\n"
        "except ResourceError as error: print(error); print(sorted(p.name for p in (cache / 'images').glob('*.npy')))\n"
    )
    command = [sys.executable, "-c", code, str(cells), str(cache)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "cannot write" in done.stdout and "make room" in done.stdout and done.stdout.endswith("[]\n")
