"""The optimizer of a trial, and the schedule of its learning rates."""

from __future__ import annotations

import math

import torch

from harness.config.trial import TrialConfig
from harness.model.freezing import names_any_epoch
from harness.model.param_groups import param_groups
from harness.model.transfer import TransferModel


def make_optimizer(
    model: TransferModel, config: TrialConfig, names: frozenset[str] | None = None, *, fused: bool = False
) -> torch.optim.Optimizer:
    """Return AdamW, or SGD with Nesterov momentum, over parameter groups that are the same in all epochs.

    Each group keeps the peak of its learning rate as `peak_lr`.

    Args:
        names: `freezing.names_any_epoch` of the model, if the caller has it: walking over all parameters takes a
            noticeable part of a short trial's time.
        fused: update all tensors in one kernel, which rounds differently from one kernel for each tensor.
    """
    groups = param_groups(
        model,
        head_lr=config.head_lr,
        backbone_lr=config.backbone_lr,
        layer_decay=config.layer_decay,
        weight_decay=config.weight_decay,
        names=names_any_epoch(model, config) if names is None else names,
    )
    for group in groups:
        group["peak_lr"] = group["lr"]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, nesterov=True, fused=fused or None)
    return torch.optim.AdamW(groups, fused=fused or None)


def lr_factor(step: int, total_steps: int, warmup_fraction: float) -> float:
    """Return the learning rate of a step as a share of its peak: linear warm-up to 1, then half a cosine towards 0.

    Args:
        step: in [0, total_steps).
        total_steps: steps of the whole trial, not of an epoch.
        warmup_fraction: share of the steps that warm up, in [0, 1]. The first step's rate is above zero.
    """
    warmup = round(warmup_fraction * total_steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total_steps - warmup, 1)))
