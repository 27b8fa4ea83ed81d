"""Parameter groups for an optimizer: one for each stage and for whether weight decay applies."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

from harness.config.trial import STAGES
from harness.errors import ConfigError
from harness.model.freezing import stage_of
from harness.model.transfer import TransferModel


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Return whether weight decay applies to a parameter: not to biases and normalisation, which have one dimension."""
    return parameter.ndim > 1 and not name.endswith("bias")


def param_groups(
    model: TransferModel,
    *,
    head_lr: float,
    backbone_lr: float | None,
    layer_decay: float,
    weight_decay: float,
    names: Collection[str],
) -> list[dict[str, Any]]:
    """Return groups for `torch.optim`, stem first and head last; each parameter of `names` is in exactly one group.

    Pass the parameters that train in *any* epoch (`freezing.names_any_epoch`), because a group that is added later
    would break schedules and resuming. A parameter that is frozen in an epoch has no gradient then, and the optimizer
    does not change it.

    Args:
        head_lr, backbone_lr: peak learning rates. `backbone_lr` is that of the last stage (nearest to the head) in
            `names`; None if there is no stage in `names`.
        layer_decay: factor on the learning rate from each stage to the one before it, in (0, 1].
        weight_decay: of the parameters for which `decays` is true.
        names: parameter names of `model`.

    Returns:
        Dictionaries with `params` and `names` in the same order, `name` (`stage4.decay`), `stage`, `lr` and
        `weight_decay`.

    Raises:
        ConfigError: stages train, but there is no `backbone_lr`.
        KeyError: the model has no parameter with one of the names.

    Layer decay after Howard and Ruder 2018, "Universal Language Model Fine-tuning for Text Classification".
    """
    parameters = [(name, parameter) for name, parameter in model.named_parameters() if name in names]
    if len(parameters) != len(set(names)):
        unknown = set(names) - {name for name, _ in parameters}
        raise KeyError(f"the model has no parameter {', '.join(sorted(unknown))}")
    backbone = [stage for stage in STAGES if any(stage_of(name) == stage for name, _ in parameters)]
    rates = {"head": head_lr}
    if backbone:
        if backbone_lr is None:
            raise ConfigError(f"backbone_lr must be given if stages train, but got None for {', '.join(backbone)}.")
        last = STAGES.index(backbone[-1])
        rates |= {stage: backbone_lr * layer_decay ** (last - STAGES.index(stage)) for stage in backbone}
    groups = []
    for stage in (*STAGES, "head"):
        for kind, decay in (("decay", weight_decay), ("no_decay", 0.0)):
            members = [
                (name, parameter)
                for name, parameter in parameters
                if stage_of(name) == stage and decays(name, parameter) == (kind == "decay")
            ]
            if members:
                groups.append(
                    {
                        "params": [parameter for _, parameter in members],
                        "names": tuple(name for name, _ in members),
                        "name": f"{stage}.{kind}",
                        "stage": stage,
                        "lr": rates[stage],
                        "weight_decay": decay,
                    }
                )
    return groups
