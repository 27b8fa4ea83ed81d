"""build: the right shape, the same values for the same arguments, and nobody else's random numbers disturbed."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from harness.config.backbone_specs import backbone_spec
from harness.config.trial import STAGES
from harness.errors import ConfigError
from harness.model.transfer import TransferModel, build


def equal(a: nn.Module, b: nn.Module) -> bool:
    mine, others = a.state_dict(), b.state_dict()
    return mine.keys() == others.keys() and all(torch.equal(mine[key], others[key]) for key in mine)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "vit_b_32", "googlenet"])
def test_model_answers_for_its_classes(name: str, smallest: Callable[[str], int]) -> None:
    size = smallest(name)
    model = build(name, 3, image_size=size).eval()
    images = torch.randn(2, 3, size, size)
    x: Tensor = images
    with torch.no_grad():
        for stage in model.stages.values():
            x = stage(x)
        assert torch.equal(model.head(x), model(images))
        assert torch.equal(model.features(images), x)
        assert model(images).shape == (2, 3)
    assert tuple(model.stages) == STAGES
    assert (model.backbone_name, model.num_classes, model.image_size) == (name, 3, size)
    assert (model.mean, model.std, model.weights_name) == (backbone_spec(name).mean, backbone_spec(name).std, "none")


def test_same_arguments_give_the_same_model_and_another_seed_another() -> None:
    first, second, third = (build("mobilenet_v3_small", 4, seed=seed) for seed in (5, 5, 6))
    assert equal(first, second)
    assert not equal(first.stages, third.stages)
    assert not equal(first.head, third.head)


def test_head_does_not_depend_on_where_the_backbone_came_from() -> None:
    assert equal(build("resnet18", 4, "none", seed=5).head, build("resnet18", 4, "bundled", seed=5).head)
    assert not equal(build("resnet18", 4, "bundled", seed=5).head, build("resnet18", 4, "bundled", seed=6).head)
    assert equal(build("resnet18", 4, "bundled", seed=5).stages, build("resnet18", 4, "bundled", seed=6).stages)


@pytest.mark.parametrize(("backbone_name", "weights"), [("mobilenet_v3_small", "bundled"), ("squeezenet1_1", "none")])
def test_building_leaves_the_global_generator_alone(backbone_name: str, weights: str) -> None:
    torch.manual_seed(9)
    before = torch.get_rng_state()
    build(backbone_name, 4, weights, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_head_of_squeezenet_is_a_convolution_for_the_new_classes() -> None:
    model = build("squeezenet1_1", 5, image_size=64)
    assert [tuple(parameter.shape) for parameter in model.head.parameters()] == [(5, 512, 1, 1), (5,)]


@pytest.mark.parametrize(("classes", "size"), [(1, 64), (0, 64)])
def test_fewer_than_two_classes_are_refused(classes: int, size: int) -> None:
    with pytest.raises(ConfigError, match=f"num_classes.*{classes}"):
        build("resnet18", classes, image_size=size)


def test_size_that_the_backbone_cannot_take_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"vit_b_32.*50"):
        build("vit_b_32", 3, image_size=50)


def test_everything_trains_and_train_is_torch_s_own_until_something_is_said() -> None:
    model = build("mobilenet_v3_small", 3)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.train().modules())
    assert not any(module.training for module in model.eval().modules())


def test_signature_is_the_documented_one() -> None:
    names = list(inspect.signature(build).parameters)
    assert names[:3] == ["backbone", "num_classes", "weights"]
    assert inspect.signature(build).parameters["weights"].default == "none"
    assert issubclass(TransferModel, nn.Module)
