"""Summary of what a configuration trains, stage by stage, without training."""

from __future__ import annotations

from dataclasses import dataclass

from harness.config import unfreezing
from harness.config.batchnorm_policy import POLICIES, Policy
from harness.config.trial import STAGES, TrialConfig
from harness.model import batchnorm, freezing
from harness.model.param_groups import param_groups
from harness.model.transfer import TransferModel


@dataclass(frozen=True)
class Part:
    """One stage, or the head."""

    name: str
    parameters: int
    training: int  # the number of them that train in any epoch
    epochs: str  # in which it trains: `1-10`, `4-10`, or `never`
    lr: float | None  # peak learning rate
    batchnorm_layers: int
    statistics: str  # what happens to BatchNorm's running statistics in the last epoch


def parts(model: TransferModel, config: TrialConfig) -> list[Part]:
    """Return the summary of the stages, stem first, and of the head.

    Args:
        model: it may have no values, see `harness.model.meta`.

    Raises:
        ConfigError: with this depth and number of epochs, a phase of unfreezing has no epoch.
    """
    unfreezing.check_schedule(config)
    names = freezing.names_any_epoch(model, config)
    groups = param_groups(
        model,
        head_lr=config.head_lr,
        backbone_lr=config.backbone_lr,
        layer_decay=config.layer_decay,
        weight_decay=config.weight_decay,
        names=names,
    )
    rates = {group["stage"]: group["lr"] for group in groups}
    last = unfreezing.unfrozen_stages(config, config.epochs)
    made = []
    for name in (*STAGES, "head"):
        module = model.head if name == "head" else model.stages[name]
        layers = batchnorm.count(module)
        own = {n: p.numel() for n, p in model.named_parameters() if freezing.stage_of(n) == name}
        made.append(
            Part(
                name=name,
                parameters=sum(own.values()),
                training=sum(size for n, size in own.items() if n in names),
                epochs=_epochs(config, name),
                lr=rates.get(name),
                batchnorm_layers=layers,
                statistics=_statistics(POLICIES[config.batchnorm], name in last) if layers else "",
            )
        )
    return made


def _statistics(policy: Policy, unfrozen: bool) -> str:
    """Return what happens to the running statistics of a stage, and whether it normalises by the batch's instead."""
    if policy.updates(unfrozen):
        return "updated, normalises by the batch"
    return "re-estimated once, then kept" if policy.recalibrates else "kept"


def _epochs(config: TrialConfig, name: str) -> str:
    """Return the range of epochs in which a stage trains; it has no gaps, because stages are only added."""
    trains = [
        epoch
        for epoch in range(1, config.epochs + 1)
        if name == "head" or name in unfreezing.unfrozen_stages(config, epoch)
    ]
    if not trains:
        return "never"
    return f"{trains[0]}-{trains[-1]}" if trains[0] < trains[-1] else str(trains[0])
