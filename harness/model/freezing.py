"""Freezing: which parameters train in which epoch. `trainable` decides it; everything else is derived from it."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from harness.config.batchnorm_policy import POLICIES
from harness.config.trial import DEPTH_MAX, STAGES, TrialConfig
from harness.errors import ConfigError
from harness.model.transfer import BATCHNORM, TransferModel


def stage_of(parameter: str) -> str:
    """Return the stage of a TransferModel's parameter, or `head`, from the parameter's name."""
    first, _, rest = parameter.partition(".")
    return rest.partition(".")[0] if first == "stages" else first


def _check_depth(depth: int, backbone: str) -> None:
    if not 0 <= depth <= DEPTH_MAX:
        raise ConfigError(
            f"unfreeze_depth must lie in 0..{DEPTH_MAX} for {backbone}, but got {depth}; "
            f"its stages are {', '.join(STAGES)}."
        )


def head_epochs(config: TrialConfig) -> int:
    """Return the number of epochs in which the head trains alone with `head_first`; at least one."""
    return max(1, round(config.head_fraction * config.epochs))


def check_schedule(config: TrialConfig) -> None:
    """Check that every phase of unfreezing has at least one epoch.

    Raises:
        ConfigError: with this depth and number of epochs, a phase has none; or the depth is out of range.
    """
    _check_depth(config.unfreeze_depth, config.backbone)
    if config.unfreeze_depth == 0:
        return
    if config.unfreeze_schedule == "head_first" and head_epochs(config) >= config.epochs:
        raise ConfigError(
            f"head_first must leave an epoch for the backbone, but a head_fraction of {config.head_fraction:g} "
            f"takes {head_epochs(config)} of {config.epochs} epochs; use more epochs or a smaller head_fraction."
        )
    if config.unfreeze_schedule == "progressive" and config.epochs < config.unfreeze_depth + 1:
        raise ConfigError(
            f"progressive needs an epoch for the head and one for each stage, {config.unfreeze_depth + 1} for an "
            f"unfreeze_depth of {config.unfreeze_depth}, but got {config.epochs}; use more epochs or a smaller depth."
        )


def unfrozen_stages(config: TrialConfig, epoch: int) -> tuple[str, ...]:
    """Return the stages that train in an epoch, stem first. The head always trains and is not among them.

    With `at_once`, all stages train from the first epoch. With `head_first`, none trains for `head_epochs`, then all.
    With `progressive`, none trains at first, then one more after equal numbers of epochs, beginning at the end that
    `unfreeze_from` names.

    Args:
        epoch: from 1 to config.epochs.

    Raises:
        ConfigError: the depth or the epoch is out of range.
    """
    _check_depth(config.unfreeze_depth, config.backbone)
    if not 1 <= epoch <= config.epochs:
        raise ConfigError(f"an epoch must lie in 1..{config.epochs}, but got {epoch}.")
    count = config.unfreeze_depth
    if config.unfreeze_schedule == "head_first" and epoch <= head_epochs(config):
        count = 0
    elif config.unfreeze_schedule == "progressive":
        count = (epoch - 1) * (config.unfreeze_depth + 1) // config.epochs
    return STAGES[:count] if config.unfreeze_from == "stem" else STAGES[DEPTH_MAX - count :]


def frozen_prefix(config: TrialConfig, epoch: int) -> int:
    """Return the number of stages, from the stem on, before the first one that trains in an epoch: 0 to 5."""
    unfrozen = unfrozen_stages(config, epoch)
    return STAGES.index(unfrozen[0]) if unfrozen else DEPTH_MAX


def last_phase(config: TrialConfig) -> int:
    """Return the first epoch in which every stage trains that trains in any epoch."""
    final = unfrozen_stages(config, config.epochs)
    return next(epoch for epoch in range(1, config.epochs + 1) if unfrozen_stages(config, epoch) == final)


def _batchnorm_affine(model: TransferModel) -> frozenset[str]:
    """Return the names of the weights and biases of all BatchNorm layers."""
    return frozenset(
        f"{name}.{parameter}"
        for name, layer in model.named_modules()
        if isinstance(layer, BATCHNORM)
        for parameter, _ in layer.named_parameters(recurse=False)
    )


def trainable(model: TransferModel, config: TrialConfig, epoch: int) -> frozenset[str]:
    """Return the names of the parameters that train in an epoch. All other parameters are frozen in that epoch.

    They follow from depth, direction and schedule. The BatchNorm policy decides whether affine weights train at all.

    Args:
        epoch: from 1 to config.epochs.
    """
    training = {*unfrozen_stages(config, epoch), "head"}
    kept = frozenset() if POLICIES[config.batchnorm].trains_affine else _batchnorm_affine(model)
    return frozenset(name for name, _ in model.named_parameters() if stage_of(name) in training) - kept


def names_any_epoch(model: TransferModel, config: TrialConfig) -> frozenset[str]:
    """Return the names of the parameters that train in any epoch: those of the last, as stages are only added."""
    return trainable(model, config, config.epochs)


def apply(model: nn.Module, names: Collection[str]) -> None:
    """Let the parameters with these names train, freeze all others, and delete the gradients of frozen ones.

    Raises:
        KeyError: the model has no parameter with such a name.
    """
    parameters = dict(model.named_parameters())
    unknown = set(names) - set(parameters)
    if unknown:
        raise KeyError(f"the model has no parameter {', '.join(sorted(unknown))}")
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in names)
        if name not in names:
            parameter.grad = None  # an optimizer updates every parameter that has a gradient, even a frozen one


def unfreeze_last(model: TransferModel, depth: int) -> list[str]:
    """Let the last `depth` stages and the head train, and freeze every other parameter.

    It sets `requires_grad` of every parameter, so that a second call leaves nothing of the first one. BatchNorm's
    statistics are not its subject: see `harness.model.batchnorm`.

    Args:
        model: the order of its `stages` is from the stem to the last block.
        depth: number of stages, from 0 (feature extraction) to len(model.stages) (full fine-tuning).

    Returns:
        Names of the stages that now train, stem first; [] at depth 0.

    Raises:
        ConfigError: depth is outside that range.

    After Yosinski et al. 2014, "How transferable are features in deep neural networks?"
    """
    at_once = TrialConfig(
        strategy="fine_tuning",
        backbone=model.backbone_name,
        unfreeze_depth=depth,
        head_lr=1.0,
        backbone_lr=1.0,
        batchnorm="fixed_stats",
        epochs=1,
    )
    apply(model, trainable(model, at_once, epoch=1))
    return list(unfrozen_stages(at_once, epoch=1))
