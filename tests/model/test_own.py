"""Backbones that are functions of the user: what fits, what is said if it does not, and when code runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from harness.config import backbone_specs as specs_module
from harness.config.backbone_costs import cost
from harness.config.backbone_specs import HALF, backbone_spec, permit
from harness.config.load import parse
from harness.errors import ConfigError
from harness.model import own_source
from harness.model.own_source import Backbone
from harness.model.transfer import build

STAGES = ("stem", "stage1", "stage2", "stage3", "stage4")
Register = Callable[[Callable[..., Any]], str]


class Net(nn.Module):
    """A network as a lab may have one; its forward is not a plain chain of its children."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU()) for _ in range(4)
        )
        self.drop = nn.Dropout(0.1)
        self.out = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        result: torch.Tensor = self.out(self.drop(x.mean([2, 3])))
        return result


class Mean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean([2, 3])


def made(net: Net | None = None, **change: Any) -> Backbone:
    net = net or Net()
    last = nn.Sequential(net.blocks[3], Mean(), net.drop)
    stages = dict(zip(STAGES, [net.first, *net.blocks[:3], last], strict=True))
    return replace(
        Backbone(stages, net.out, 6, HALF.mean, HALF.std, native_size=48, min_size=8, model=net, licence="MIT"),
        **change,
    )


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Put a function into a module of its own; returns the backbone's name, which a study file would give."""
    monkeypatch.setattr(specs_module, "_permitted", set())
    own_source._spec.cache_clear()

    def put(function: Callable[..., Any]) -> str:
        module = ModuleType("lab_networks")
        module.net = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "lab_networks", module)
        permit(["own:lab_networks:net"])
        return "own:lab_networks:net"

    return put


def test_a_function_of_one_s_own_is_a_backbone(register: Register) -> None:
    name = register(made)
    spec = backbone_spec(name)
    assert (spec.native_size, spec.min_size, spec.feature_dim, spec.licence) == (48, 8, 6, "MIT")
    assert (spec.has_batchnorm, spec.has_random_layers) == (True, True)
    assert (spec.mean, spec.std) == HALF
    model, again = build(name, 3, seed=5), build(name, 3, seed=5)
    assert model(torch.randn(2, 3, 48, 48)).shape == (2, 3)
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    assert cost(name).batchnorm_layers == 4
    assert [p > 0 for p in cost(name).parameters] == [True] * 5


def test_a_backbone_without_a_whole_model_is_its_chain(register: Register) -> None:
    name = register(lambda: made(model=None))
    assert build(name, 3)(torch.randn(2, 3, 64, 64)).shape == (2, 3)


def test_the_function_gets_the_image_size_if_it_has_a_parameter(register: Register) -> None:
    asked: list[int | None] = []

    def net(image_size: int | None) -> Backbone:
        asked.append(image_size)
        return made()

    build(register(net), 3, image_size=32)
    assert asked == [None, 32]


def test_weights_have_the_names_of_the_whole_model(register: Register, tmp_path: Path) -> None:
    torch.manual_seed(1)
    theirs = Net()
    torch.save(theirs.state_dict(), tmp_path / "lab.pth")
    model = build(register(made), 3, str(tmp_path / "lab.pth"))
    assert torch.equal(model.stages["stem"].weight, theirs.first.weight)
    name = register(lambda: made(official_weights=tmp_path / "lab.pth"))
    own_source._spec.cache_clear()
    model = build(name, 3, "imagenet")
    assert model.weights_name == "lab.pth"
    with pytest.raises(ConfigError, match="official_weights"):
        build(register(made), 3, "imagenet")


def shared_parameter() -> Backbone:
    net = Net()
    net.blocks[1] = net.blocks[0]
    return made(net)


def outside() -> Backbone:
    net = Net()
    net.scale = nn.Parameter(torch.ones(1))  # type: ignore[assignment]
    return made(net)


def without_stage3() -> Backbone:
    good = made()
    return replace(good, stages={name: stage for name, stage in good.stages.items() if name != "stage3"})


def writing() -> Backbone:
    good = made(model=None)
    last = nn.Sequential(nn.ReLU(inplace=True), good.stages["stage2"])
    return replace(good, stages={**good.stages, "stage2": last})


def other_forward() -> Backbone:
    good = made()
    return replace(good, stages={**good.stages, "stage4": nn.Sequential(nn.Hardswish(), good.stages["stage4"])})


def unpooled() -> Backbone:
    good = made(model=None)
    return replace(good, stages={**good.stages, "stage4": good.stages["stage4"][0]})  # type: ignore[index]


def failing() -> Backbone:
    good = made(model=None)
    return replace(good, stages={**good.stages, "stage1": nn.Conv2d(5, 6, 1)})


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (without_stage3, ["stages: must be stem, stage1, stage2, stage3, stage4"]),
        (lambda: made(features=7), ["features: must be what the head reads (6), but got 7"]),
        (shared_parameter, ["stage1: must share no parameter", "stage2: must share no parameter"]),
        (outside, ["model: all its parameters must be in a stage or the head, but these are not: scale"]),
        (writing, ["stages.stage2: must not write into its input"]),
        (other_forward, ["model: its forward must be the stages in order and then the head"]),
        (unpooled, ["stage4: must give features of shape (N, 6)"]),
        (failing, ["stage1: failed on images of 48 px: RuntimeError"]),
        (
            lambda: made(std=(1.0, 0.0, 1.0), native_size=4, head=nn.ReLU()),
            [
                "std: must be three numbers above zero",
                "native_size: must be at least min_size",
                "head: must be a Linear",
            ],
        ),
    ],
)
def test_a_backbone_that_does_not_fit_is_refused_with_all_its_faults(
    register: Register, function: Callable[[], Backbone], said: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        backbone_spec(register(function))
    assert len(error.value.faults) == len(said)
    for words in said:
        assert words in " ".join(error.value.faults)


def broken() -> Backbone:
    raise KeyError("lab")


@pytest.mark.parametrize(
    ("function", "said"), [(broken, "failed: KeyError"), (lambda: nn.Linear(2, 2), "it returned a Linear")]
)
def test_a_function_that_returns_no_backbone_is_refused(
    register: Register, function: Callable[[], Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        backbone_spec(register(function))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("own:no_such_lab:net", "importing no_such_lab failed: ModuleNotFoundError"),
        ("own:lab_networks:nets", "its functions are"),
        ("own:lab_networks", "written own:package.module:function"),
        ("own:../lab:net", "written own:package.module:function"),
    ],
)
def test_a_name_that_leads_to_no_function_is_refused(register: Register, name: str, said: str) -> None:
    register(made)
    permit([name])
    with pytest.raises(ConfigError, match=said):
        backbone_spec(name)


# When the code runs


def study(backbone: Any) -> dict[str, Any]:
    return {"data": {"image_size": 32}, "weights": "none", "search": {"backbone": backbone}}


@pytest.mark.parametrize("written", ["own:lab_networks:net", {"own": "lab_networks:net"}])
def test_a_study_file_that_names_a_function_runs_it(register: Register, written: Any) -> None:
    name = register(made)
    specs_module._permitted.clear()
    for value in (written, [written, "resnet18"]):
        parse(study(value), "study.yaml")
    assert backbone_spec(name).feature_dim == 6


def test_a_stored_study_runs_no_function_that_it_names(register: Register) -> None:
    called: list[int] = []

    def net() -> Backbone:
        called.append(1)
        return made()

    name = register(net)
    specs_module._permitted.clear()  # as in a process that reads a stored study
    for ask in (backbone_spec, cost, lambda one: build(one, 3)):
        with pytest.raises(ConfigError, match="names code"):
            ask(name)
    assert called == []


def test_a_changed_file_is_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "lab_file", raising=False)
    (tmp_path / "lab_file.py").write_text("def net():\n    return None\n")
    permit(["own:lab_file:net"])
    before = own_source.SOURCE.version("own:lab_file:net")
    (tmp_path / "lab_file.py").write_text("def net():\n    return 1\n")
    assert own_source.SOURCE.version("own:lab_file:net") != before
    assert str(tmp_path) not in sys.path
