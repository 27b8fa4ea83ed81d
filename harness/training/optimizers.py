"""The optimizer of a trial, over parameter groups that are fixed for all its epochs."""

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
    """AdamW, or SGD with Nesterov momentum, over groups that are fixed for all epochs.

    Args:
        names: `freezing.names_any_epoch`, where it is at hand: walks over a model's parameters are what a short trial's
            time goes to.
        fused: all tensors in one kernel, whose rounding is not that of a step tensor by tensor.
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
    """The share of the peak rate at this step: a line up to 1, then half a cosine down towards 0.

    Args:
        step: 0-based, in [0, total_steps).
        total_steps: of the whole trial, not of an epoch.
        warmup_fraction: share of the steps on the rising line; the first of them is above zero.
    """
    warmup = round(warmup_fraction * total_steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total_steps - warmup, 1)))
