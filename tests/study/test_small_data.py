"""A study of few images: the batch size is fitted, what cannot hold a batch is left out, and it ends in a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_study import Watching, World

from harness.errors import DataError
from harness.results.stored_study import stored_document
from harness.study.prepare import prepare


@pytest.fixture
def sixty(tmp_path: Path) -> World:
    """60 images of two classes, and a study that names no batch size."""
    random = np.random.default_rng(0)
    for number in range(60):
        path = tmp_path / "images" / ("round", "long")[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 130, (32, 32, 3)).astype(np.uint8)
        pixels[:, :, number % 2] += 70
        Image.fromarray(pixels).save(path)
    world = World(tmp_path, tmp_path / "images")
    return world


def write(world: World, **changes: Any) -> None:
    data = {"source": {"folder": str(world.images)}, "image_size": 32}
    search = {"backbone": "mobilenet_v3_small", "unfreeze_depth": 1, "head_lr": {"low": 1e-3, "high": 0.1, "log": True}}
    world.write(**{"data": data, "search": search, "data_sizes": [0.1, 0.5, 1.0], **changes})


def test_sixty_images_of_two_classes_end_in_a_page(sixty: World) -> None:
    write(sixty)
    watching = Watching()
    result = sixty.run(watching=watching)
    assert result.report.is_file() and result.sentence
    assert any(text.startswith("Data: 60 images in 2 classes (30 each)") for text in watching.texts)
    assert any("Batch size: 8 instead of 64" in text and "36 training images" in text for text in watching.texts)
    assert any("Data sizes: 0.1 of the training images hold no batch of 8" in text for text in watching.texts)
    assert {record.config.batch_size for record in watching.records} == {8}
    study = stored_document(sixty.folder())["study"]
    assert study["batch_size"] == 8 and study["data_sizes"] == [0.5, 1.0]


def test_an_explicit_batch_size_that_cannot_work_is_refused_with_the_largest_that_can(sixty: World) -> None:
    write(sixty, batch_size=40)
    with pytest.raises(DataError, match="batch_size: 36 or less") as refused:
        prepare(sixty.load(), ["cpu"], lambda *told: None)
    assert "it would be 8" in str(refused.value)
    write(sixty, batch_size=36)
    assert prepare(sixty.load(), ["cpu"], lambda *told: None).study.ranges()["batch_size"].values() == (36,)


def test_a_searched_batch_size_leaves_out_the_fractions_that_its_largest_value_does_not_fit(sixty: World) -> None:
    write(sixty, batch_size=[4, 20])
    prepared = prepare(sixty.load(), ["cpu"], lambda *told: None)
    assert prepared.study.data_sizes == (1.0,)
    assert prepared.chosen == ("Data sizes: 0.1 and 0.5 of the training images hold no batch of 20 and are left out.",)


def test_the_warnings_are_told_once_and_stand_in_the_card(sixty: World) -> None:
    for path in sorted((sixty.images / "long").glob("*.png")):
        with Image.open(path) as image:
            image.save(path.with_suffix(".jpg"), quality=95)
        path.unlink()
    write(sixty, data_sizes=[])
    watching = Watching()
    result = sixty.run(watching=watching)
    assert sum(text.startswith("Warning: The class can be told from the file format") for text in watching.texts) == 1
    assert "The class can be told from the file format" in result.report.read_text()
    again = Watching()
    sixty.run(watching=again, trials=3)
    assert not any(text.startswith("Warning") for text in again.texts)
