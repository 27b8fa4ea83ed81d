"""TrialConfig: everything that is chosen for one training run; and the canonical form of equal configurations."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

from harness.config.batchnorm_policy import BatchNormPolicy
from harness.config.from_json import restored
from harness.config.parameters import (
    PARAMETERS,
    Augmentation,
    Head,
    HeadInit,
    HeadSolver,
    Imbalance,
    Optimizer,
    UnfreezeFrom,
    UnfreezeSchedule,
)
from harness.config.strategies import DEPTH_MAX, STAGES, STRATEGIES, Strategy

__all__ = ["DEPTH_MAX", "STAGES", "STRATEGIES", "Shift", "Strategy", "TrialConfig", "canonical"]

Shift = Literal["blur", "noise", "brightness", "stain", "jpeg"]
LOGISTIC_VIEWS = 8  # most epochs whose views a logistic head uses: the recipe `flips` has no more

_DEFAULTS: dict[str, Any] = {name: parameter.default for name, parameter in PARAMETERS.items()}


@dataclass(frozen=True)
class TrialConfig:
    """One configuration: the values that a trial trains with. Its results are in `TrialRecord`.

    The meaning and the default of each field are in `PARAMETERS` (`harness.config.parameters`). Learning rates are
    those at the peak of the schedule; `backbone_lr` is None if no stage is unfrozen. `weights` is a label of
    `harness.config.initial_weights`: the study knows the path behind it. It is `default` if the study compares no
    weights, and with `from_scratch`, which always starts from random ones.
    """

    strategy: Strategy
    backbone: str
    unfreeze_depth: int  # stages that train, 0..5; 0 is feature extraction
    head_lr: float
    backbone_lr: float | None
    weights: str = _DEFAULTS["weights"]
    unfreeze_from: UnfreezeFrom = _DEFAULTS["unfreeze_from"]
    unfreeze_schedule: UnfreezeSchedule = _DEFAULTS["unfreeze_schedule"]
    head_fraction: float = _DEFAULTS["head_fraction"]
    head_solver: HeadSolver = _DEFAULTS["head_solver"]
    layer_decay: float = _DEFAULTS["layer_decay"]
    batchnorm: BatchNormPolicy = _DEFAULTS["batchnorm"]
    optimizer: Optimizer = _DEFAULTS["optimizer"]
    weight_decay: float = _DEFAULTS["weight_decay"]
    label_smoothing: float = _DEFAULTS["label_smoothing"]
    warmup_fraction: float = _DEFAULTS["warmup_fraction"]
    gradient_clip: float = _DEFAULTS["gradient_clip"]
    ema: float = _DEFAULTS["ema"]
    early_stopping: int = _DEFAULTS["early_stopping"]
    head: Head = _DEFAULTS["head"]
    head_hidden: int = _DEFAULTS["head_hidden"]
    head_dropout: float = _DEFAULTS["head_dropout"]
    head_init: HeadInit = _DEFAULTS["head_init"]
    imbalance: Imbalance = _DEFAULTS["imbalance"]
    augmentation: Augmentation = _DEFAULTS["augmentation"]
    mixup: float = _DEFAULTS["mixup"]
    cutmix: float = _DEFAULTS["cutmix"]
    batch_size: int = _DEFAULTS["batch_size"]
    epochs: int = 10

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON values, in the order of their declaration."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrialConfig:
        """Return the configuration of a `to_json`; raise TypeError for an unknown field."""
        return restored(cls, values)

    def passes(self) -> int:
        """Return how often a training computes its training images: once an epoch, or what a logistic head needs."""
        if self.head_solver != "logistic":
            return self.epochs
        same = self.augmentation == "none" and self.imbalance != "balanced_sampling"  # every epoch shows the same
        return 1 if same else min(self.epochs, LOGISTIC_VIEWS)

    def key(self) -> str:
        """Return sixteen hex digits that identify this configuration: equal configurations have equal keys."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def canonical(config: TrialConfig) -> TrialConfig:
    """Return the canonical form of a configuration: equal for all configurations that train in the same way.

    A parameter that has no effect, given the others, takes its default (`Parameter.active`). A value with the same
    effect as another one is replaced by the first of them (`Parameter.simplified`).
    """
    values = dict(vars(config))
    for name, parameter in PARAMETERS.items():
        values[name] = parameter.canonical(values)
    return dataclasses.replace(config, **values)
