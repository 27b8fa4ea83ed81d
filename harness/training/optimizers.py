"""The optimizer of a trial, over parameter groups that are fixed for all its epochs."""

from __future__ import annotations

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
        model, head_lr=config.head_lr, backbone_lr=config.backbone_lr, layer_decay=config.layer_decay,
        weight_decay=config.weight_decay, names=names_any_epoch(model, config) if names is None else names,
    )  # fmt: skip
    for group in groups:
        group["peak_lr"] = group["lr"]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, nesterov=True, fused=fused or None)
    return torch.optim.AdamW(groups, fused=fused or None)
