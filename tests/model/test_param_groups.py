"""Groups: every parameter that ever trains in exactly one, with the rate and decay of its place."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn

from harness.config.trial import TrialConfig
from harness.errors import ConfigError
from harness.model import freezing
from harness.model.param_groups import param_groups
from harness.model.transfer import TransferModel, build

CONFIG = TrialConfig("fine_tuning", "resnet18", 3, head_lr=0.1, backbone_lr=0.01, batchnorm="updated_stats")


@pytest.fixture(scope="module")
def model() -> TransferModel:
    return build("resnet18", 3)


def groups(model: TransferModel, **change: Any) -> list[dict[str, Any]]:
    names = freezing.names_any_epoch(model, dataclasses.replace(CONFIG, **change))
    return param_groups(model, head_lr=0.1, backbone_lr=0.01, layer_decay=0.5, weight_decay=0.3, names=names)


@pytest.mark.parametrize("depth", range(6))
@pytest.mark.parametrize("end", ["head", "stem"])
@pytest.mark.parametrize("policy", ["frozen", "updated_stats"])
def test_each_parameter_that_ever_trains_lies_in_exactly_one_group(
    model: TransferModel, depth: int, end: str, policy: str
) -> None:
    change: dict[str, Any] = {"unfreeze_depth": depth, "unfreeze_from": end, "batchnorm": policy}
    names = freezing.names_any_epoch(model, dataclasses.replace(CONFIG, **change))
    held = Counter(id(parameter) for group in groups(model, **change) for parameter in group["params"])
    assert held == Counter(id(parameter) for name, parameter in model.named_parameters() if name in names)


def test_each_group_names_its_own_parameters(model: TransferModel) -> None:
    for group in groups(model):
        assert [id(model.get_parameter(name)) for name in group["names"]] == [id(p) for p in group["params"]]
        assert {freezing.stage_of(name) for name in group["names"]} == {group["stage"]}


def test_biases_and_normalisation_do_not_decay(model: TransferModel) -> None:
    spared = {
        parameter
        for layer in model.modules()
        for name, parameter in layer.named_parameters(recurse=False)
        if name == "bias" or isinstance(layer, nn.BatchNorm2d)
    }
    for group in groups(model, unfreeze_depth=5):
        assert all((parameter in spared) == (group["weight_decay"] == 0) for parameter in group["params"])
        assert group["weight_decay"] in (0, 0.3)


def test_rates_fall_from_the_last_unfrozen_stage(model: TransferModel) -> None:
    rates = {group["stage"]: group["lr"] for group in groups(model)}
    assert rates == {"stage2": 0.0025, "stage3": 0.005, "stage4": 0.01, "head": 0.1}


def test_from_the_stem_the_stage_nearest_the_head_has_the_full_rate(model: TransferModel) -> None:
    rates = {group["stage"]: group["lr"] for group in groups(model, unfreeze_depth=2, unfreeze_from="stem")}
    assert rates == {"stem": 0.005, "stage1": 0.01, "head": 0.1}


def test_schedule_does_not_change_the_groups(model: TransferModel) -> None:
    for schedule in ("head_first", "progressive"):
        assert [g["names"] for g in groups(model, unfreeze_schedule=schedule)] == [g["names"] for g in groups(model)]


def test_optimizer_takes_them_and_its_state_survives_a_restart(model: TransferModel) -> None:
    first, second = torch.optim.AdamW(groups(model)), torch.optim.AdamW(groups(model))
    second.load_state_dict(first.state_dict())
    assert [group["name"] for group in second.param_groups] == [group["name"] for group in groups(model)]
    assert second.param_groups[0]["name"] == "stage2.decay"


def test_stages_without_a_rate_are_refused(model: TransferModel) -> None:
    names = freezing.names_any_epoch(model, CONFIG)
    with pytest.raises(ConfigError, match=r"backbone_lr.*stage2, stage3, stage4"):
        param_groups(model, head_lr=0.1, backbone_lr=None, layer_decay=1, weight_decay=0, names=names)


def test_head_alone_needs_no_backbone_rate(model: TransferModel) -> None:
    found = param_groups(
        model, head_lr=0.1, backbone_lr=None, layer_decay=1, weight_decay=0, names={"head.weight", "head.bias"}
    )
    assert [group["name"] for group in found] == ["head.decay", "head.no_decay"]


def test_name_that_no_parameter_has_is_an_error(model: TransferModel) -> None:
    with pytest.raises(KeyError, match=r"head\.nothing"):
        param_groups(model, head_lr=0.1, backbone_lr=None, layer_decay=1, weight_decay=0, names={"head.nothing"})
