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

from harness.config import unfreezing
from harness.config.backbone_specs import backbone_spec, backbone_specs
from harness.config.trial import TrialConfig
from harness.model import batchnorm, freezing
from harness.model.transfer import build

Walk = tuple[str, dict[str, Any]]  # a policy, and what the configuration changes
Walks = Callable[[tuple[str, ...]], Iterator[Walk]]
CHEAP = ("mobilenet_v3_small", "squeezenet1_1")  # with and without BatchNorm: these take every walk in every run


def every_walk(policies: tuple[str, ...]) -> Iterator[Walk]:
    """Each policy at once, the head first, and progressively through every depth: from the head for every other policy,
    otherwise from the stem."""
    for policy in policies:
        one, other = ("head", "stem") if POLICIES.index(policy) % 2 else ("stem", "head")
        for depth in (0, 2, 5):
            yield policy, {"unfreeze_depth": depth, "unfreeze_from": one, "epochs": 1}
        yield policy, {"unfreeze_depth": 3, "unfreeze_from": other, "unfreeze_schedule": "head_first", "epochs": 2}
        yield policy, {"unfreeze_depth": 5, "unfreeze_from": one, "unfreeze_schedule": "progressive", "epochs": 6}


def few_walks(policies: tuple[str, ...]) -> Iterator[Walk]:
    """Each policy, schedule, end and depth, but not each with each."""
    through = "updated_stats" if "updated_stats" in policies else "frozen"  # statistics move with their stage
    yield through, {"unfreeze_depth": 5, "unfreeze_schedule": "progressive", "epochs": 6}
    yield through, {"unfreeze_depth": 3, "unfreeze_from": "stem", "unfreeze_schedule": "head_first", "epochs": 2}
    if through == "updated_stats":
        yield "frozen", {"unfreeze_depth": 2, "epochs": 1}
        yield "fixed_stats", {"unfreeze_depth": 3, "unfreeze_from": "stem", "epochs": 1}
        yield "recalibrated", {"unfreeze_depth": 5, "epochs": 1}
        yield "train_mode", {"unfreeze_depth": 0, "epochs": 1}


def short_walks(policies: tuple[str, ...]) -> Iterator[Walk]:
    """For backbones whose steps take seconds: one walk, and two policies that tell statistics from parameters."""
    through = "updated_stats" if "updated_stats" in policies else "frozen"
    yield through, {"unfreeze_depth": 2, "unfreeze_from": "stem", "unfreeze_schedule": "progressive", "epochs": 3}
    if through == "updated_stats":
        yield "fixed_stats", {"unfreeze_depth": 5, "epochs": 1}
        yield "train_mode", {"unfreeze_depth": 0, "epochs": 1}


def every_short_walk(policies: tuple[str, ...]) -> Iterator[Walk]:
    for policy in policies:
        end = "head" if POLICIES.index(policy) % 2 else "stem"
        yield policy, {"unfreeze_depth": 2, "unfreeze_from": end, "unfreeze_schedule": "progressive", "epochs": 3}


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


def check(backbone: str, size: int, walks: Walks, heavy_walks: Walks) -> None:
    """Take the walks, each from the same start, and compare what moved with what was said to train."""
    model = build(backbone, 3, image_size=size)
    for layer in model.modules():
        if isinstance(layer, StochasticDepth):
            layer.p = 0.0  # now and then it skips a block for all images, which then has nothing to learn from
        if type(layer).__name__ == "DropPath":
            layer.drop_prob = 0.0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight") and not parameter.any():
                parameter.fill_(1.0)  # a branch that ends with zeros has nothing to learn from in its first step
    heavy = size >= 224 or sum(parameter.numel() for parameter in model.parameters()) > HEAVY
    images = 2 if size >= 224 else 4
    torch.manual_seed(0)
    # A deep random network without normalisation has no gradient left at its stem.
    batchnorm.recalibrate(model, torch.randn(16 if size < 224 else 2, 3, size, size), batch_size=8 if size < 224 else 2)
    starts = {} if heavy else {"": {name: tensor.clone() for name, tensor in model.state_dict().items()}}
    policies = POLICIES if backbone_spec(backbone).has_batchnorm else POLICIES[:1]
    for policy, change in (heavy_walks if heavy else walks)(policies):
        if policy == "recalibrated" and starts and policy not in starts:
            model.load_state_dict(starts[""])
            before = digests(model)
            batchnorm.recalibrate(model, torch.randn(8, 3, size, size), batch_size=8)
            statistic = {name for name in statistics(model, model.stages) if "num_batches" not in name}
            assert moved(before, digests(model)) == statistic
            starts[policy] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        if starts:  # every walk begins anew: a random network that is trained for long dies
            model.load_state_dict(starts.get(policy, starts[""]))
        plan = config(backbone, batchnorm=policy, **change)
        unfreezing.check_schedule(plan)
        optimizer = SignStep(optimizer_of(model, plan).param_groups)
        torch.manual_seed(0)
        before = digests(model)
        for epoch in range(1, plan.epochs + 1):
            step(model, plan, epoch, optimizer, size, images)
            after = digests(model)
            wanted = freezing.trainable(model, plan, epoch) | statistics(model, moving(plan, epoch))
            assert moved(before, after) == wanted, (policy, change, epoch)
            before = after


def test_a_step_moves_what_trains_and_nothing_else(small_member: str, smallest: Callable[[str], int]) -> None:
    check(small_member, smallest(small_member), few_walks, short_walks)


@pytest.mark.parametrize(
    "name", [name if name in CHEAP else pytest.param(name, marks=pytest.mark.slow) for name in backbone_specs()]
)
def test_every_policy_takes_every_walk(name: str, smallest: Callable[[str], int]) -> None:
    check(name, smallest(name), every_walk, every_short_walk)


def moved(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def taken(walks: Walks, policies: tuple[str, ...] = POLICIES) -> list[TrialConfig]:
    return [config("resnet18", batchnorm=policy, **change) for policy, change in walks(policies)]


def depths(plans: list[TrialConfig]) -> set[tuple[str, int]]:
    return {
        (plan.batchnorm, len(unfreezing.unfrozen_stages(plan, epoch)))
        for plan in plans
        for epoch in range(1, plan.epochs + 1)
    }


def test_the_walks_pass_every_depth_under_every_policy_and_every_schedule_from_both_ends() -> None:
    plans = taken(every_walk)
    for schedule in ("at_once", "head_first", "progressive"):
        assert {plan.unfreeze_from for plan in plans if plan.unfreeze_schedule == schedule} == {"head", "stem"}
    assert depths(plans) == {(policy, depth) for policy in POLICIES for depth in range(6)}


@pytest.mark.parametrize("policies", [POLICIES, POLICIES[:1]], ids=["BatchNorm", "none"])
def test_the_few_walks_leave_no_policy_schedule_end_and_depth_out(policies: tuple[str, ...]) -> None:
    plans = taken(few_walks, policies)
    assert {plan.batchnorm for plan in plans} == set(policies)
    assert {plan.unfreeze_schedule for plan in plans} >= {"head_first", "progressive"}
    assert {plan.unfreeze_from for plan in plans} == {"head", "stem"}
    assert {depth for _, depth in depths(plans)} == set(range(6))


@pytest.mark.parametrize("wrong", ["a frozen stage trains", "statistics drift"])
def test_the_comparison_sees_what_should_not_move(wrong: str) -> None:
    model = build("mobilenet_v3_small", 3)
    plan = config("mobilenet_v3_small", unfreeze_depth=2, epochs=1)
    optimizer = optimizer_of(model, config("mobilenet_v3_small", unfreeze_depth=5, epochs=1))
    before = digests(model)
    harm = {"unfreeze_depth": 3} if wrong == "a frozen stage trains" else {"batchnorm": "train_mode"}
    step(model, config("mobilenet_v3_small", **{"unfreeze_depth": 2, "epochs": 1} | harm), 1, optimizer, 32)
    assert moved(before, digests(model)) > freezing.trainable(model, plan, 1)
