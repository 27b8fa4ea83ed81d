"""The data sheets against torchvision, and the checks that a study makes with them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import get_model_weights, get_weight, list_models

from harness.config.backbone_specs import backbone_spec, backbone_specs, check_image_size
from harness.errors import ConfigError
from harness.model import backbones, batchnorm


def test_every_classifier_of_torchvision_has_a_sheet() -> None:
    assert sorted(backbone_specs()) == sorted(list_models(module=torchvision.models))


@pytest.mark.parametrize("name", backbone_specs())
def test_native_size_and_normalisation_are_those_of_the_default_weights(name: str) -> None:
    weights = get_model_weights(name).DEFAULT
    transform = weights.transforms()
    entry = backbone_spec(name)
    assert get_weight(entry.official_weights) is weights
    assert [entry.native_size] == transform.crop_size
    assert (list(entry.mean), list(entry.std)) == (transform.mean, transform.std)
    assert entry.fits(entry.native_size)
    assert ("LICENSE" in weights.meta.get("license", "")) == (entry.licence == "CC-BY-NC-4.0")


def test_sheet_says_what_the_built_model_is(backbone: str, smallest: Callable[[str], int]) -> None:
    entry = backbone_spec(backbone)
    size = smallest(backbone)
    model = backbones.build_backbone(backbone, size)
    random = [
        layer
        for layer in model.modules()
        if isinstance(layer, nn.Dropout | torchvision.ops.StochasticDepth) and layer.p > 0
    ]
    assert entry.has_batchnorm == batchnorm.has_batchnorm(model)
    assert entry.has_random_layers == bool(random)
    head = next(
        layer for layer in backbones.head(model, backbone).modules() if isinstance(layer, nn.Linear | nn.Conv2d)
    )
    assert entry.feature_dim == head.weight.shape[1]
    if entry.multiple_of > 1:
        return
    model.eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, entry.min_size, entry.min_size)).shape == (1, 1000)
        with pytest.raises(RuntimeError):
            model(torch.zeros(1, 3, entry.min_size - 1, entry.min_size - 1))


def test_unknown_backbone_is_refused_with_its_near_matches() -> None:
    with pytest.raises(ConfigError, match=r"resnet18") as error:
        backbone_spec("resnet81")
    assert "resnet81" in str(error.value)


def test_unknown_backbone_without_near_matches_is_refused_with_all_names() -> None:
    with pytest.raises(ConfigError, match="'x'") as error:
        backbone_spec("x")
    assert all(name in str(error.value) for name in backbone_specs())


@pytest.mark.parametrize(
    ("name", "size"), [("maxvit_t", 64), ("inception_v3", 64), ("vit_b_16", 60), ("vit_h_14", 64), ("vgg11", 31)]
)
def test_size_that_a_backbone_cannot_take_is_refused(name: str, size: int) -> None:
    with pytest.raises(ConfigError, match=rf"image_size.*{name}.*{size}.*native"):
        check_image_size(name, size)


@pytest.mark.parametrize(("name", "size"), [("resnet18", 64), ("vit_b_16", 64), ("vit_h_14", 70), ("maxvit_t", 448)])
def test_size_that_a_backbone_takes_passes(name: str, size: int) -> None:
    check_image_size(name, size)
