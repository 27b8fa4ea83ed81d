"""The key `weights`: every form it may have, and what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from harness.config.initial_weights import Weights, WeightsChoice
from harness.config.load import parse
from harness.config.space import space
from harness.config.study import StudyConfig
from harness.config.trial import canonical
from harness.errors import ConfigError

MINE = {
    "path": "runs/a/best.pth",
    "normalisation": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
    "name": "DINO",
}
RESNET = {"backbone": "resnet50"}


@pytest.mark.parametrize(
    "given", ["bundled", "none", "imagenet", "IMAGENET1K_V2", "ResNet50_Weights.IMAGENET1K_V1", "a/b.pth", MINE]
)
def test_every_form_comes_back_as_it_was_written(given: Any) -> None:
    study = parse({"weights": given, "search": RESNET}, "s.yaml")
    dumped = study.model_dump(mode="json", by_alias=True)
    assert dumped["weights"] == given
    assert StudyConfig.model_validate(dumped).weights == study.weights


def test_a_label_has_no_folder_in_it() -> None:
    assert Weights("/home/someone/secret/best.pth").label == "best.pth"
    assert Weights(r"C:\\Users\\someone\\best.pth").label == "best.pth"
    assert WeightsChoice.read(MINE).labels == ("DINO",)


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        (3, "must be bundled"),
        ([], "at least one"),
        ({"path": "a.pth", "mean": [0, 0, 0]}, "normalisation: {mean"),
        ({"name": "x"}, "{path: …"),
        ({"path": "imagenet", "name": "x"}, "path must be a file"),
        ({"path": "a.pth", "name": "none"}, "none of bundled"),
        ({"path": "a.pth", "normalisation": {"mean": [0.5] * 3}}, "normalisation is {mean"),
        ({"path": "a.pth", "normalisation": {"mean": [0.5], "std": [0.5]}}, "mean must be three numbers"),
        ({"path": "a.pth", "normalisation": {"mean": [123.7, 116.3, 103.5], "std": [58.4, 57.1, 57.4]}}, "by 255"),
        ({"path": "a.pth", "normalisation": {"mean": [0.5] * 3, "std": [0.2, 0, 0.2]}}, "std must lie in \\(0, 1\\]"),
        ({"path": "a.pth", "normalisation": {"mean": [float("nan")] * 3, "std": [0.2] * 3}}, "mean must lie"),
        ("IMAGENET1K_V3", "ResNet50_Weights.IMAGENET1K_V1, ResNet50_Weights.IMAGENET1K_V2"),
        ("ResNet18_Weights.IMAGENET1K_V1", "which has ResNet50_Weights"),
    ],
)
def test_what_is_wrong_is_refused_with_the_rule(given: Any, rule: str) -> None:
    with pytest.raises(ConfigError, match=rule) as error:
        parse({"weights": given, "search": RESNET}, "s.yaml")
    assert all(fault.startswith("weights: ") for fault in error.value.faults)


def test_every_searched_backbone_must_have_the_weights_that_are_named() -> None:
    with pytest.raises(ConfigError) as error:
        parse({"weights": "IMAGENET1K_V2", "search": {"backbone": ["resnet50", "resnet18", "vgg11"]}}, "s.yaml")
    assert [fault.partition(" which has ")[0].split()[-1] for fault in error.value.faults] == ["resnet18,", "vgg11,"]


def test_a_checkpoint_needs_its_backbone_in_every_form() -> None:
    for given in ("a.pth", MINE):
        with pytest.raises(ConfigError, match="must name the backbone"):
            parse({"weights": given}, "s.yaml")


def test_several_weights_are_a_searched_value_in_either_place() -> None:
    several: list[Any] = ["imagenet", "IMAGENET1K_V1", MINE]
    one = parse({"search": {**RESNET, "weights": several}}, "s.yaml")
    other = parse({"search": RESNET, "weights": several}, "s.yaml")
    assert one == other
    assert one.ranges()["weights"].values() == ("imagenet", "IMAGENET1K_V1", "DINO")
    assert StudyConfig.model_validate(one.model_dump(mode="json", by_alias=True)) == one
    defaults = space(one, "fine_tuning").defaults()
    assert [config.weights for config in defaults] == ["imagenet", "IMAGENET1K_V1", "DINO"]


def test_one_weight_is_no_searched_value_and_does_not_show() -> None:
    study = parse({"weights": "imagenet", "search": {**RESNET}}, "s.yaml")
    assert "weights" not in study.ranges()
    assert space(study, "fine_tuning").default().weights == "default"


def test_a_training_from_scratch_ignores_weights() -> None:
    study = parse({"search": {"weights": ["bundled", "none"]}, "strategies": ["fine_tuning", "from_scratch"]}, "s.yaml")
    assert space(study, "from_scratch").searched() == {}
    config = space(study, "from_scratch").default()
    assert config.weights == "default"
    assert canonical(dataclasses.replace(config, weights="bundled")) == config


@pytest.mark.parametrize(
    ("document", "rule"),
    [
        ({"search": {"weights": ["bundled", "bundled"]}}, "names bundled twice"),
        ({"search": {**RESNET, "weights": ["a/best.pth", "b/best.pth"]}}, "names best.pth twice.*name: …"),
        ({"search": {"weights": ["bundled", "none"]}, "weights": "none"}, "given twice"),
        ({"search": {"weights": []}}, "at least one"),
        ({"search": {"weights": ["bundled", {"low": 1}]}}, "path: …"),
        (
            {"search": {"weights": ["bundled", "none"]}, "try": [{"strategy": "fine_tuning", "weights": "imagenet"}]},
            "lies outside search.weights",
        ),
    ],
)
def test_a_list_of_weights_that_cannot_be_compared_is_refused(document: dict[str, Any], rule: str) -> None:
    with pytest.raises(ConfigError, match=rule):
        parse(document, "s.yaml")
