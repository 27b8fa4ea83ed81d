"""Freezing: which parameters train in which epoch. `trainable` decides it; everything else is derived from it."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from harness.config.batchnorm_policy import POLICIES
from harness.config.trial import TrialConfig
from harness.config.unfreezing import unfrozen_stages
from harness.model.transfer import BATCHNORM, TransferModel


def stage_of(parameter: str) -> str:
    """Return the stage of a TransferModel's parameter, or `head`, from the parameter's name."""
    first, _, rest = parameter.partition(".")
    return rest.partition(".")[0] if first == "stages" else first


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
