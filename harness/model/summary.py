"""What a configuration would train, stage by stage, before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

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
    training: int  # of them, those that train in any epoch
    epochs: str  # in which it trains: `1-10`, `4-10`, or `never`
    lr: float | None  # peak rate
    batchnorm_layers: int
    statistics: str  # what happens to BatchNorm's running statistics once it trains, or all along if it never does


def parts(model: TransferModel, config: TrialConfig) -> list[Part]:
    """The stages, stem first, and the head; a model without values (`harness.model.meta`) will do.

    Raises:
        ConfigError: depth and epochs leave a phase without an epoch.
    """
    freezing.check_schedule(config)
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
    last = freezing.unfrozen_stages(config, config.epochs)
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
    """What happens to the running statistics of a stage, and what normalises there if it is not they."""
    if policy.updates(unfrozen):
        return "updated, normalises by the batch"
    return "re-estimated once, then kept" if policy.recalibrates else "kept"


def _epochs(config: TrialConfig, name: str) -> str:
    """The epochs in which a stage trains: stages are only ever added."""
    trains = [
        epoch
        for epoch in range(1, config.epochs + 1)
        if name == "head" or name in freezing.unfrozen_stages(config, epoch)
    ]
    if not trains:
        return "never"
    return f"{trains[0]}-{trains[-1]}" if trains[0] < trains[-1] else str(trains[0])
