"""Which parameters train in which epoch: one function says so, and everything else follows from it."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from harness.config.batchnorm_policy import POLICIES
from harness.config.trial import DEPTH_MAX, STAGES, TrialConfig
from harness.errors import ConfigError
from harness.model.transfer import BATCHNORM, TransferModel


def stage_of(parameter: str) -> str:
    """The stage a parameter of a TransferModel lies in, from its name, or `head`."""
    first, _, rest = parameter.partition(".")
    return rest.partition(".")[0] if first == "stages" else first


def _check_depth(depth: int, backbone: str) -> None:
    if not 0 <= depth <= DEPTH_MAX:
        raise ConfigError(
            f"unfreeze_depth must lie in 0..{DEPTH_MAX} for {backbone}, but got {depth}; "
            f"its stages are {', '.join(STAGES)}."
        )


def head_epochs(config: TrialConfig) -> int:
    """With `head_first`: for how many epochs the head trains alone, at least one."""
    return max(1, round(config.head_fraction * config.epochs))


def check_schedule(config: TrialConfig) -> None:
    """That every phase of the unfreezing has an epoch of its own.

    Raises:
        ConfigError: depth and epochs leave a phase without one, or the depth is out of range.
    """
    _check_depth(config.unfreeze_depth, config.backbone)
    if config.unfreeze_depth == 0:
        return
    if config.unfreeze_schedule == "head_first" and head_epochs(config) >= config.epochs:
        raise ConfigError(
            f"head_first must leave an epoch after the head's own, but a head_fraction of {config.head_fraction:g} "
            f"takes {head_epochs(config)} of {config.epochs} epochs; train longer, or lower head_fraction."
        )
    if config.unfreeze_schedule == "progressive" and config.epochs < config.unfreeze_depth + 1:
        raise ConfigError(
            f"progressive needs an epoch for the head and one for each stage, {config.unfreeze_depth + 1} for an "
            f"unfreeze_depth of {config.unfreeze_depth}, but got {config.epochs}; train longer, or unfreeze less."
        )


def unfrozen_stages(config: TrialConfig, epoch: int) -> tuple[str, ...]:
    """The stages that train in an epoch, stem first; the head always trains.

    `at_once`: all of them from the first epoch. `head_first`: none for `head_epochs`, then all. `progressive`: none,
    then one more at equal steps, beginning at the end that `unfreeze_from` names.

    Args:
        epoch: counted from 1 to config.epochs.
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
    """How many stages, from the stem on, lie before the first one that trains in an epoch: 0..5."""
    unfrozen = unfrozen_stages(config, epoch)
    return STAGES.index(unfrozen[0]) if unfrozen else DEPTH_MAX


def last_phase(config: TrialConfig) -> int:
    """The first epoch in which everything trains that ever does."""
    final = unfrozen_stages(config, config.epochs)
    return next(epoch for epoch in range(1, config.epochs + 1) if unfrozen_stages(config, epoch) == final)


def _batchnorm_affine(model: TransferModel) -> frozenset[str]:
    """Names of the weights and biases of BatchNorm."""
    return frozenset(
        f"{name}.{parameter}"
        for name, layer in model.named_modules()
        if isinstance(layer, BATCHNORM)
        for parameter, _ in layer.named_parameters(recurse=False)
    )


def trainable(model: TransferModel, config: TrialConfig, epoch: int) -> frozenset[str]:
    """Names of the parameters that train in an epoch (from 1), from depth, direction, schedule and BatchNorm policy.

    Everything else is frozen in that epoch. A BatchNorm policy may keep its affine weights from ever training.
    """
    training = {*unfrozen_stages(config, epoch), "head"}
    kept = frozenset() if POLICIES[config.batchnorm].trains_affine else _batchnorm_affine(model)
    return frozenset(name for name, _ in model.named_parameters() if stage_of(name) in training) - kept


def names_any_epoch(model: TransferModel, config: TrialConfig) -> frozenset[str]:
    """Names of the parameters that train in any epoch: stages are only ever added, so those of the last one."""
    return trainable(model, config, config.epochs)


def apply(model: nn.Module, names: Collection[str]) -> None:
    """Let the parameters of these names train and freeze every other one; gradients of frozen ones are dropped.

    Raises:
        KeyError: the model has no parameter of such a name.
    """
    parameters = dict(model.named_parameters())
    unknown = set(names) - set(parameters)
    if unknown:
        raise KeyError(f"no parameter of the name {', '.join(sorted(unknown))}")
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in names)
        if name not in names:
            parameter.grad = None  # an optimizer steps whatever has a gradient, frozen or not


def unfreeze_last(model: TransferModel, depth: int) -> list[str]:
    """Let the last `depth` stages and the head train, and freeze every other parameter.

    Decides the flag of every parameter, so a second call never leaves traces of the first.
    Does not touch BatchNorm statistics: see `harness.model.batchnorm`.

    Args:
        model: its `stages` run from the stem (first) to the last block.
        depth: number of stages, 0 (feature extraction) to len(model.stages) (full fine-tuning).

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
