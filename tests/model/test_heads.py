"""The new head: linear or with a hidden layer, with dropout, drawn or zero; and one that can learn in every case."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from harness.model.transfer import TransferModel, build

KINDS: list[dict[str, Any]] = [
    {},
    {"head": "mlp", "head_hidden": 16},
    {"head_dropout": 0.5},
    {"head": "mlp", "head_hidden": 16, "head_dropout": 0.5, "head_init": "zero"},
    {"head_init": "zero"},
]


def built(name: str, **options: Any) -> TransferModel:
    return build(name, 5, image_size=64, **options)


@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize("name", ["mobilenet_v3_small", "squeezenet1_1"])
def test_every_kind_answers_for_its_classes_and_its_last_layer_learns(name: str, options: dict[str, Any]) -> None:
    model = built(name, **options).train()
    logits = model(torch.rand(4, 3, 64, 64))
    assert logits.shape == (4, 5)
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 3])).backward()
    last = [layer for layer in model.head.modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]
    assert last.weight.grad is not None and last.weight.grad.any()
    assert last.bias is not None and last.bias.grad is not None and last.bias.grad.any()
    if options.get("head_init") == "zero":
        assert not logits.any()


def test_logits_of_squeezenet_are_not_held_above_zero() -> None:
    model = built("squeezenet1_1").eval()
    assert (model(torch.rand(8, 3, 64, 64)) < 0).any()


def test_hidden_layer_and_dropout_stand_where_they_should() -> None:
    model = built("resnet18", head="mlp", head_hidden=16, head_dropout=0.25)
    kinds = [type(layer).__name__ for layer in model.head]
    assert kinds == ["Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    assert [tuple(p.shape) for p in model.head.parameters()] == [(16, 512), (16,), (5, 16), (5,)]
    assert {layer.p for layer in model.head if isinstance(layer, nn.Dropout)} == {0.25}


def test_a_zero_head_draws_its_hidden_layer_all_the_same() -> None:
    one, other = (built("resnet18", head="mlp", head_init=init, seed=4) for init in ("default", "zero"))
    drawn, zeros = dict(one.head.named_parameters()), dict(other.head.named_parameters())
    assert torch.equal(drawn["hidden.weight"], zeros["hidden.weight"])
    assert drawn["output.weight"].any() and not zeros["output.weight"].any()


def test_the_usual_head_is_one_plain_layer() -> None:
    assert isinstance(built("resnet18").head, nn.Linear)
