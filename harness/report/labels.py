"""What the knobs and their values are called on the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.config.study import KNOBS
from harness.report import wording

LABELS = {
    "backbone": "backbone",
    "unfreeze_depth": "unfreeze depth (stages)",
    "unfreeze_from": "unfreezes from",
    "unfreeze_schedule": "unfreeze schedule",
    "head_fraction": "head-first share of epochs",
    "head_lr": "head learning rate",
    "backbone_lr": "backbone learning rate",
    "layer_decay": "layer decay",
    "batchnorm": "BatchNorm",
    "optimizer": "optimizer",
    "weight_decay": "weight decay",
    "label_smoothing": "label smoothing",
    "warmup_fraction": "warm-up share of steps",
    "gradient_clip": "gradient clipping (norm)",
    "ema": "moving average (decay)",
    "early_stopping": "early stopping (epochs)",
    "head": "head",
    "head_hidden": "hidden units of the head",
    "head_dropout": "dropout in the head",
    "head_init": "head initialisation",
    "imbalance": "class imbalance",
    "augmentation": "augmentation",
    "mixup": "mixup (alpha)",
    "cutmix": "CutMix (alpha)",
    "batch_size": "batch size",
    "epochs": "epochs",
}
# Knobs that are switched off at these values: then they are not worth a line.
OFF: dict[str, Any] = {
    "layer_decay": 1.0,
    "label_smoothing": 0.0,
    "gradient_clip": 0.0,
    "ema": 0.0,
    "early_stopping": 0,
    "head": "linear",
    "head_dropout": 0.0,
    "head_init": "default",
    "imbalance": "none",
    "mixup": 0.0,
    "cutmix": 0.0,
}


def idle(config: Mapping[Any, Any]) -> set[str]:
    """The knobs of a configuration that say nothing: switched off, or without an effect beside the others."""
    idle = {name for name, off in OFF.items() if config.get(name) == off}
    if config.get("unfreeze_depth") == 0:
        idle |= {"unfreeze_from", "unfreeze_schedule", "layer_decay"}
    if config.get("unfreeze_schedule") != "head_first":
        idle.add("head_fraction")
    if config.get("head") != "mlp":
        idle.add("head_hidden")
    return idle


def config_text(name: str, value: Any) -> str:
    if value is None or value != value:
        return wording.DASH
    if name in KNOBS and KNOBS[name].kind == "float":
        return wording.rate(float(value))
    return str(int(value)) if isinstance(value, float) else str(value)
