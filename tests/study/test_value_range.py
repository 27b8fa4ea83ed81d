"""`bit_depth: used`: the training part's range scales all images, and card, page, identity and logged model name it."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import numpy as np
import pytest
from image_files import as_tiff
from PIL import Image
from small_study import World

from harness import read_image
from harness.data.dataset import open_dataset
from harness.errors import DataError
from harness.results.event_types import ModelLogged
from harness.study.identity import refusal
from harness.study.prepare import prepare
from harness.tracking import mlflow_models, mlflow_runs
from harness.tracking.address import default_address


@pytest.fixture
def dark(tmp_path: Path) -> Path:
    """Two classes of 20 images with 16 bits, which use 300 to 2300, and one image of each class with 8 bits."""
    rng, root = np.random.default_rng(0), tmp_path / "dark"
    for number in range(40):
        path = root / "ab"[number % 2] / f"{number:02d}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = rng.integers(300, 2300, (32, 32)) // (1 + number % 2)
        path.write_bytes(as_tiff(samples.clip(300).astype(np.uint16)))
    for name in "ab":
        Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(root / name / "shallow.png")
    return root


def test_a_study_names_the_range_that_its_images_were_scaled_by(
    world: World, dark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_runs, "export_model", mlflow_models.export_model)
    world.write(data={"source": {"folder": str(dark)}, "image_size": 32, "bit_depth": "used"}, search={"batch_size": 8})
    result = world.run()
    prepared = prepare(world.load(), ["cpu"], lambda *_: None)
    train = np.flatnonzero(prepared.parts == "train")
    paths = [dark / prepared.dataset.table["path"][row] for row in train]
    values = np.concatenate([np.asarray(Image.open(path)).ravel() for path in paths if path.suffix == ".tif"])
    low, high = int(values.min()), int(values.max())
    assert prepared.data.value_range == (low, high) and low >= 300

    card = json.loads(world.folder().data_card.read_text())
    assert card["value_range"] == [low, high]
    page = result.report.read_text() if result.report.is_file() else (result.report / "index.html").read_text()
    assert f"the training images' range: {low:,} is black and {high:,} is white" in page.replace("&#39;", "'")
    [logged] = world.of(ModelLogged)
    with mlflow_models.global_tracking(default_address()):
        metadata = mlflow.models.get_model_info(logged.uri).metadata
    assert (metadata["bit_depth"], metadata["value_range"]) == ("used", [low, high])

    row = int(np.flatnonzero(prepared.parts == "test")[0])  # with the card, a user makes the very pixels of new images
    path = dark / prepared.dataset.table["path"][row]
    array = np.load(prepared.data.arrays[min(prepared.data.arrays)], mmap_mode="r")
    assert np.array_equal(
        read_image(path, bit_depth="used", value_range=card["value_range"]), array[row] / np.float32(65535)
    )

    before = json.loads(json.dumps(prepared.fingerprint))
    moved = refusal("tiny", before, before | {"value range": [low, high + 1]})
    assert moved is not None and "value range" in str(moved.args) + str(moved)


def test_a_range_needs_training_images_with_more_than_8_bits(world: World, dark: Path) -> None:
    world.write(data={"source": {"folder": str(dark)}, "bit_depth": "used"})
    dataset = open_dataset(world.load().study.data, cache=world.root / "cache")
    deep = (dataset.table["kind"].str.startswith("16")).to_numpy()
    with pytest.raises(DataError, match="bit_depth: used needs the range of the training images, but all 40"):
        dataset.value_range(~deep)
    low, high = dataset.value_range(np.ones(len(deep), np.bool_)) or (0, 0)
    assert 300 <= low < high < 2300


def test_images_of_8_bits_have_no_range_to_scale_by(world: World) -> None:
    world.write(data={"source": {"folder": str(world.images)}, "image_size": 32, "bit_depth": "used"})
    prepared = prepare(world.load(), ["cpu"], lambda *_: None)
    assert prepared.data.value_range is None and "value range" not in prepared.fingerprint
