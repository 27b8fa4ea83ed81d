"""Policies, depths, schedules and ends: in real steps what moves is what was said to train, and nothing else.

Each walk is one configuration from its first epoch to its last with one optimizer, a step an epoch; before and after
every step all parameters and buffers are compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from real_steps import HEAVY, POLICIES, config, moving, optimizer_of, statistics, step
from torch import nn
from torchvision.ops import StochasticDepth

from harness.config.sheets import backbone_spec
from harness.model import batchnorm, freezing
from harness.model.transfer import build


def walks(policy: str) -> Iterator[dict[str, Any]]:
    """At once, the head first, and progressively through every depth: from the head for every other policy, else from
    the stem."""
    one, other = ("head", "stem") if POLICIES.index(policy) % 2 else ("stem", "head")
    for depth in (0, 2, 5):
        yield {"unfreeze_depth": depth, "unfreeze_from": one, "epochs": 1}
    yield {"unfreeze_depth": 3, "unfreeze_from": other, "unfreeze_schedule": "head_first", "epochs": 2}
    yield {"unfreeze_depth": 5, "unfreeze_from": one, "unfreeze_schedule": "progressive", "epochs": 6}


def short_walks(policy: str) -> Iterator[dict[str, Any]]:
    """For backbones whose steps take seconds."""
    end = "head" if POLICIES.index(policy) % 2 else "stem"
    yield {"unfreeze_depth": 2, "unfreeze_from": end, "unfreeze_schedule": "progressive", "epochs": 3}


class SignStep(torch.optim.Optimizer):
    """Moves every value by the sign of its gradient, and decays weights as AdamW does.

    However small a gradient is, its tensor moves; and nothing is kept, so that half a billion parameters fit.
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {"lr": 1e-4})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(parameter.grad.sign_(), alpha=group["lr"])


def digests(model: nn.Module) -> dict[str, str]:
    """A digest of every parameter and buffer: as sharp as a copy, without its memory."""
    return {
        name: hashlib.sha256(tensor.detach().contiguous().numpy().data).hexdigest()
        for name, tensor in model.state_dict().items()
    }


def test_a_step_moves_what_trains_and_nothing_else(backbone: str, smallest: Callable[[str], int]) -> None:
    size = smallest(backbone)
    model = build(backbone, 3, image_size=size)
    for layer in model.modules():
        if isinstance(layer, StochasticDepth):
            layer.p = 0.0  # now and then it skips a block for all four images, which then has nothing to learn from
    heavy = size >= 224 or sum(parameter.numel() for parameter in model.parameters()) > HEAVY
    torch.manual_seed(0)
    # A deep random network without normalisation has no gradient left at its stem.
    batchnorm.recalibrate(model, torch.randn(32 if size < 224 else 8, 3, size, size), batch_size=8)
    first = None if heavy else {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for policy in POLICIES if backbone_spec(backbone).has_batchnorm else POLICIES[:1]:
        start = first
        if policy == "recalibrated" and first is not None:
            model.load_state_dict(first)
            before = digests(model)
            batchnorm.recalibrate(model, torch.randn(8, 3, size, size), batch_size=8)
            statistic = {name for name in statistics(model, model.stages) if "num_batches" not in name}
            assert moved(before, digests(model)) == statistic
            start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        for change in short_walks(policy) if heavy else walks(policy):
            if start is not None:  # every walk begins anew: a random network that is trained for long dies
                model.load_state_dict(start)
            plan = config(backbone, batchnorm=policy, **change)
            freezing.check_schedule(plan)
            optimizer = SignStep(optimizer_of(model, plan).param_groups)
            torch.manual_seed(0)
            before = digests(model)
            for epoch in range(1, plan.epochs + 1):
                step(model, plan, epoch, optimizer, size)
                after = digests(model)
                wanted = freezing.trainable(model, plan, epoch) | statistics(model, moving(plan, epoch))
                assert moved(before, after) == wanted, (policy, change, epoch)
                before = after


def moved(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def test_the_walks_pass_every_depth_under_every_policy_and_every_schedule_from_both_ends() -> None:
    plans = [config("resnet18", batchnorm=policy, **change) for policy in POLICIES for change in walks(policy)]
    for schedule in ("at_once", "head_first", "progressive"):
        assert {plan.unfreeze_from for plan in plans if plan.unfreeze_schedule == schedule} == {"head", "stem"}
    reached = {
        (plan.batchnorm, len(freezing.unfrozen_stages(plan, epoch)))
        for plan in plans
        for epoch in range(1, plan.epochs + 1)
    }
    assert reached == {(policy, depth) for policy in POLICIES for depth in range(6)}


@pytest.mark.parametrize("wrong", ["a frozen stage trains", "statistics drift"])
def test_the_comparison_sees_what_should_not_move(wrong: str) -> None:
    model = build("mobilenet_v3_small", 3)
    plan = config("mobilenet_v3_small", unfreeze_depth=2, epochs=1)
    optimizer = optimizer_of(model, config("mobilenet_v3_small", unfreeze_depth=5, epochs=1))
    before = digests(model)
    harm = {"unfreeze_depth": 3} if wrong == "a frozen stage trains" else {"batchnorm": "train_mode"}
    step(model, config("mobilenet_v3_small", **{"unfreeze_depth": 2, "epochs": 1} | harm), 1, optimizer, 32)
    assert moved(before, digests(model)) > freezing.trainable(model, plan, 1)
