"""Restarts in the middle of a schedule, and policies that come to the same thing or do not: bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from real_steps import POLICIES, changed, config, optimizer_of, step

from harness.model import batchnorm
from harness.model.transfer import TransferModel, build


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
