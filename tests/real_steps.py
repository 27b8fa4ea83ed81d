"""One optimizer step as a trial makes it, and what the table of BatchNorm policies says must move in it."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from harness.config import unfreezing
from harness.config.trial import STAGES, TrialConfig
from harness.model import batchnorm, freezing
from harness.model.param_groups import param_groups
from harness.model.transfer import TransferModel

POLICIES = ("frozen", "fixed_stats", "updated_stats", "recalibrated", "train_mode")
HEAVY = 50_000_000  # parameters; beyond it a step and its snapshots take seconds


def config(backbone: str, **change: Any) -> TrialConfig:
    base = TrialConfig("fine_tuning", backbone, 5, head_lr=0.01, backbone_lr=0.01, batchnorm="fixed_stats")
    return dataclasses.replace(base, **change)


def optimizer_of(model: TransferModel, plan: TrialConfig) -> torch.optim.AdamW:
    """Its steps have the size of the rate however small a gradient is, so none is lost below float resolution; the rate
    is small, so that no layer of a random network dies on the way."""
    names = freezing.names_any_epoch(model, plan)
    groups = param_groups(model, head_lr=1e-4, backbone_lr=1e-4, layer_decay=1.0, weight_decay=0.1, names=names)
    return torch.optim.AdamW(groups, eps=1e-30)


def step(
    model: TransferModel, plan: TrialConfig, epoch: int, optimizer: torch.optim.Optimizer, size: int, images: int = 4
) -> None:
    """One optimizer step as a trial makes it."""
    freezing.apply(model, freezing.trainable(model, plan, epoch))
    batchnorm.apply_policy(model, plan.batchnorm, unfreezing.unfrozen_stages(plan, epoch))
    model.train()
    generator = torch.Generator().manual_seed(epoch)
    batch = torch.randn(images, 3, size, size, generator=generator)
    pull = torch.randn(images, 3, generator=generator)
    optimizer.zero_grad(set_to_none=True)
    (model(batch) * pull).mean().backward()  # unlike cross-entropy it never has learnt enough
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
    return unfreezing.unfrozen_stages(plan, epoch) if plan.batchnorm == "updated_stats" else ()
