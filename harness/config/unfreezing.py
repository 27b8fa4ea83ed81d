"""Unfreezing: which stages train in which epoch, as plain values. `model.freezing` derives the parameters from it."""

from __future__ import annotations

from harness.config.strategies import DEPTH_MAX, STAGES
from harness.config.trial import TrialConfig
from harness.errors import ConfigError


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
