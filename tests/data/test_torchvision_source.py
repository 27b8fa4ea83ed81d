from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

from harness.config.data import DataConfig
from harness.data import split
from harness.data.dataset import arrays, open_dataset
from harness.errors import ConfigError, DataError, ResourceError


class Fake:
    """Images in memory, as torchvision's data sets give them: `self[i]` is (image, class index)."""

    classes = ("zebra", "ant")

    def __init__(self, part: int, count: int) -> None:
        self.targets = [i % 2 for i in range(count)]
        self.part = part

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        if index >= len(self):
            raise IndexError
        pixels = np.random.default_rng([self.part, index]).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        return Image.fromarray(pixels), self.targets[index]


class TrainTest(Fake):
    def __init__(self, root: str, train: bool = True, download: bool = False) -> None:
        super().__init__(int(train), 40 if train else 20)


class Splits(Fake):
    def __init__(self, root: str, split: str = "train", download: bool = False) -> None:
        if split not in ("train", "val", "test"):
            raise ValueError(f"unknown split {split}")
        super().__init__(("train", "val", "test").index(split), {"train": 40, "val": 10, "test": 12}[split])


class Whole(Fake):
    def __init__(self, root: str, download: bool = False) -> None:
        super().__init__(7, 60)


class Unreachable:
    def __init__(self, root: str, download: bool = False) -> None:
        raise URLError("no route to host")


class Boxes(Whole):
    def __init__(self, root: str, download: bool = False) -> None:
        super().__init__(root)
        self.targets = [{"box": 1}] * 60  # type: ignore[list-item]


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for kind in (TrainTest, Splits, Whole, Unreachable, Boxes):
        monkeypatch.setattr(torchvision.datasets, kind.__name__, kind, raising=False)
    yield


def config(name: str) -> DataConfig:
    return DataConfig.model_validate({"source": {"torchvision": name}})


def test_a_data_set_with_train_and_test_keeps_its_test_part(cache: Path) -> None:
    dataset = open_dataset(config("TrainTest"), cache=cache)
    assert dataset.name == "TrainTest" and dataset.classes == ("ant", "zebra")
    assert dataset.table["fixed_split"].value_counts().to_dict() == {"train": 40, "test": 20}
    parts = split.draw(dataset.table, config("TrainTest").split, seed=0)
    assert (parts == "test").sum() == 20 and (parts == "validation").sum() == 12
    images = np.load(arrays(dataset, config("TrainTest"), 16, cache=cache))
    assert images.shape == (60, 16, 16, 3)


def test_images_and_labels_stay_together(cache: Path) -> None:
    dataset = open_dataset(config("Whole"), cache=cache)
    images = np.load(arrays(dataset, config("Whole"), 16, cache=cache))
    source = Whole("")
    for row, path in enumerate(dataset.table["path"]):
        image, target = source[int(Path(path).stem)]
        assert dataset.classes[dataset.table["label"][row]] == source.classes[target]
        assert (images[row] == np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC))).all()


def test_every_split_that_a_class_offers_is_fixed(cache: Path) -> None:
    table = open_dataset(config("Splits"), cache=cache).table
    assert table["fixed_split"].value_counts().to_dict() == {"train": 40, "test": 12, "validation": 10}


def test_a_download_that_fails_is_one_error_with_the_way_out(cache: Path) -> None:
    with pytest.raises(
        ResourceError, match=r"Unreachable is neither cached nor reachable .*no route(.|\n)*folder: PATH"
    ):
        open_dataset(config("Unreachable"), cache=cache)


def test_a_name_that_torchvision_cannot_download_is_refused_with_those_it_can(cache: Path) -> None:
    for name in ("Nonesuch", "ImageFolder", "__builtins__"):
        with pytest.raises(ConfigError, match=r"CIFAR10.*EuroSAT"):
            open_dataset(config(name), cache=cache)


def test_a_data_set_without_classes_is_refused(cache: Path) -> None:
    with pytest.raises(DataError, match="must be classes, but those of"):
        open_dataset(config("Boxes"), cache=cache)
