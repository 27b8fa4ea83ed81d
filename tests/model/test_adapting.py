"""Real steps: what moves is what was said to train, for every family, policy, depth and schedule."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.config.sheets import SHEETS
from harness.config.trial import STAGES, TrialConfig
from harness.model import batchnorm, freezing
from harness.model.param_groups import param_groups
from harness.model.transfer import TransferModel, build

POLICIES = ("frozen", "fixed_stats", "updated_stats", "recalibrated", "train_mode")
HEAVY = 50_000_000  # parameters; beyond it a step and its snapshots take seconds
Snapshot = Callable[[nn.Module], dict[str, Tensor]]


def config(backbone: str, **change: Any) -> TrialConfig:
    base = TrialConfig("fine_tuning", backbone, 5, head_lr=0.01, backbone_lr=0.01, batchnorm="fixed_stats")
    return dataclasses.replace(base, **change)


def optimizer_of(model: TransferModel, plan: TrialConfig) -> torch.optim.AdamW:
    """Its steps have the size of the rate however small a gradient is, so none is lost below float resolution."""
    names = freezing.names_any_epoch(model, plan)
    groups = param_groups(model, head_lr=0.01, backbone_lr=0.01, layer_decay=1.0, weight_decay=0.1, names=names)
    return torch.optim.AdamW(groups, eps=1e-30)


def step(model: TransferModel, plan: TrialConfig, epoch: int, optimizer: torch.optim.Optimizer, size: int) -> None:
    """One optimizer step as a trial makes it."""
    freezing.apply(model, freezing.trainable(model, plan, epoch))
    batchnorm.apply_policy(model, plan.batchnorm, freezing.unfrozen_stages(plan, epoch))
    model.train()
    generator = torch.Generator().manual_seed(epoch)
    images, labels = torch.randn(4, 3, size, size, generator=generator), torch.tensor([0, 1, 2, 0])
    optimizer.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(model(images), labels).backward()
    optimizer.step()


def changed(model: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


def statistics(model: TransferModel, stages: Any) -> set[str]:
    """Names of the running statistics of these stages."""
    return {
        name
        for name, _ in model.named_buffers()
        if freezing.stage_of(name) in stages and ("running" in name or "num_batches" in name)
    }


def moving(plan: TrialConfig, epoch: int) -> tuple[str, ...]:
    """The stages whose statistics the policy's table lets move."""
    if plan.batchnorm == "train_mode":
        return STAGES
    return freezing.unfrozen_stages(plan, epoch) if plan.batchnorm == "updated_stats" else ()


def cases(backbone: str, heavy: bool) -> Iterator[dict[str, Any]]:
    """Every policy at every depth for one; for the others every policy at two stages from either end, and the ends."""
    policies = POLICIES if SHEETS[backbone].has_batchnorm else POLICIES[:1]
    for policy in policies[-1:] if heavy else policies:
        depths = [(2, "stem")] if heavy else [(2, "stem"), (2, "head")]
        if backbone == "mobilenet_v3_small":
            depths = [(depth, end) for depth in range(6) for end in ("stem", "head")]
        elif policy == policies[-1] and not heavy:
            depths += [(0, "head"), (5, "head")]
        for depth, end in depths:
            yield {"batchnorm": policy, "unfreeze_depth": depth, "unfreeze_from": end}


def test_a_step_moves_what_trains_and_nothing_else(
    backbone: str, smallest: Callable[[str], int], snapshot: Snapshot
) -> None:
    size = smallest(backbone)
    model = build(backbone, 3, image_size=size)
    start = snapshot(model)
    heavy = size >= 224 or sum(parameter.numel() for parameter in model.parameters()) > HEAVY
    for change in cases(backbone, heavy):
        model.load_state_dict(start)
        plan = config(backbone, **change)
        torch.manual_seed(0)
        step(model, plan, 1, optimizer_of(model, plan), size)
        wanted = freezing.trainable(model, plan, 1) | statistics(model, moving(plan, 1))
        assert changed(model, start) == wanted, change


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("schedule", ["at_once", "head_first", "progressive"])
@pytest.mark.parametrize("end", ["head", "stem"])
def test_each_epoch_moves_what_trains_in_it_with_one_optimizer(
    policy: Any, schedule: Any, end: Any, snapshot: Snapshot
) -> None:
    plan = config(
        "mobilenet_v3_small",
        unfreeze_depth=3,
        batchnorm=policy,
        unfreeze_schedule=schedule,
        unfreeze_from=end,
        epochs=4,
    )
    model = build("mobilenet_v3_small", 3)
    optimizer = optimizer_of(model, plan)
    for epoch in range(1, 5):
        before = snapshot(model)
        step(model, plan, epoch, optimizer, 32)
        wanted = freezing.trainable(model, plan, epoch) | statistics(model, moving(plan, epoch))
        assert changed(model, before) == wanted, epoch


@pytest.mark.parametrize("schedule", ["head_first", "progressive"])
def test_a_restart_in_the_middle_of_a_schedule_changes_no_bit(schedule: Any) -> None:
    plan = config("mobilenet_v3_small", batchnorm="updated_stats", unfreeze_schedule=schedule, epochs=6)

    def run(model: TransferModel, optimizer: torch.optim.Optimizer, epochs: range) -> None:
        for epoch in epochs:
            torch.manual_seed(epoch)
            step(model, plan, epoch, optimizer, 32)

    whole = build("mobilenet_v3_small", 3)
    run(whole, optimizer_of(whole, plan), range(1, 7))

    first = build("mobilenet_v3_small", 3)
    optimizer = optimizer_of(first, plan)
    run(first, optimizer, range(1, 4))
    second = build("mobilenet_v3_small", 3, seed=1)
    second.load_state_dict(first.state_dict())
    resumed = optimizer_of(second, plan)
    resumed.load_state_dict(optimizer.state_dict())
    run(second, resumed, range(4, 7))

    assert changed(second, dict(whole.state_dict())) == set()


@pytest.mark.parametrize(
    ("depth", "policies"), [(0, ("frozen", "fixed_stats", "updated_stats")), (5, ("updated_stats", "train_mode"))]
)
def test_policies_that_come_to_the_same_thing_give_the_same_bits(depth: int, policies: tuple[Any, ...]) -> None:
    results = []
    for policy in policies:
        plan = config("mobilenet_v3_small", unfreeze_depth=depth, batchnorm=policy)
        model = build("mobilenet_v3_small", 3)
        torch.manual_seed(0)
        optimizer = optimizer_of(model, plan)
        for epoch in (1, 2):
            step(model, plan, epoch, optimizer, 32)
        results.append(model)
    for other in results[1:]:
        assert changed(other, dict(results[0].state_dict())) == set()


def test_policies_that_differ_give_different_weights() -> None:
    results = []
    for policy in POLICIES:
        plan = config("mobilenet_v3_small", unfreeze_depth=2, batchnorm=policy)
        model = build("mobilenet_v3_small", 3, "bundled")
        if policy == "recalibrated":
            batchnorm.recalibrate(model, torch.rand(8, 3, 32, 32), batch_size=8)
        torch.manual_seed(0)
        step(model, plan, 1, optimizer_of(model, plan), 32)
        results.append(model)
    for i, one in enumerate(results):
        for other in results[:i]:
            assert changed(one, dict(other.state_dict()))
