"""TrialConfig: everything that is chosen for one training run, and when two choices are the same one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from harness.config.restored import restored

Strategy = Literal["feature_extraction", "fine_tuning", "from_scratch"]
UnfreezeFrom = Literal["head", "stem"]
UnfreezeSchedule = Literal["at_once", "head_first", "progressive"]
BatchNormPolicy = Literal["frozen", "fixed_stats", "updated_stats", "recalibrated", "train_mode"]
Optimizer = Literal["adamw", "sgd"]
Augmentation = Literal["none", "flips", "microscopy", "natural"]
Head = Literal["linear", "mlp"]
HeadInit = Literal["default", "zero"]
Imbalance = Literal["none", "weighted_loss", "balanced_sampling"]
Shift = Literal["blur", "noise", "brightness", "stain", "jpeg"]

STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
NAME_RULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # of a study
STAGES = ("stem", "stage1", "stage2", "stage3", "stage4")
DEPTH_MAX = len(STAGES)


@dataclass(frozen=True)
class TrialConfig:
    """One configuration: the values a trial trains with. What happened lies in `TrialRecord`.

    Rates are for the peak of the schedule; `backbone_lr` is None where nothing is unfrozen.
    `weights` is not here: it belongs to the study and is the same for all its trials, except that
    `from_scratch` always starts from random values.
    """

    strategy: Strategy
    backbone: str
    unfreeze_depth: int  # stages that train, 0..5; 0 is feature extraction
    head_lr: float
    backbone_lr: float | None
    unfreeze_from: UnfreezeFrom = "head"
    unfreeze_schedule: UnfreezeSchedule = "at_once"
    head_fraction: float = 0.3  # of the epochs, for head_first
    layer_decay: float = 1.0  # rate factor from each stage to the one before it, (0, 1]
    batchnorm: BatchNormPolicy = "frozen"
    optimizer: Optimizer = "adamw"
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0
    warmup_fraction: float = 0.1  # of all steps, linear from zero; cosine to zero after it
    gradient_clip: float = 0.0  # largest norm of all gradients together; 0 does not clip
    ema: float = 0.0  # decay of the exponential moving average that is evaluated and kept; 0 averages nothing
    early_stopping: int = 0  # epochs without a better validation score before the trial ends; 0 trains them all
    head: Head = "linear"
    head_hidden: int = 256  # units of the hidden layer, for mlp
    head_dropout: float = 0.0  # before the last layer, and for mlp before the first one too
    head_init: HeadInit = "default"  # of the last layer
    imbalance: Imbalance = "none"
    augmentation: Augmentation = "flips"
    mixup: float = 0.0  # alpha of the beta distribution that weights two images; 0 mixes nothing
    cutmix: float = 0.0  # alpha of the beta distribution of the area that is replaced; 0 replaces nothing
    batch_size: int = 64
    epochs: int = 10

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values, in the order they are declared."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrialConfig:
        """Back from `to_json`; an unknown field raises TypeError."""
        return restored(cls, values)

    def key(self) -> str:
        """Sixteen hex digits that name this configuration; equal configurations, equal keys."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


# What practitioners' guides recommend as a first setup (reasons: ARCHITECTURE.md, "Defaults").
DEFAULTS: dict[Strategy, dict[str, Any]] = {
    "feature_extraction": {"unfreeze_depth": 0, "head_lr": 1e-3, "backbone_lr": None, "batchnorm": "frozen"},
    "fine_tuning": {"unfreeze_depth": 5, "head_lr": 3e-4, "backbone_lr": 3e-5, "batchnorm": "fixed_stats"},
    "from_scratch": {"unfreeze_depth": 5, "head_lr": 1e-3, "backbone_lr": 1e-3, "batchnorm": "updated_stats"},
}


def canonical(config: TrialConfig, has_batchnorm: bool) -> TrialConfig:
    """The one form of all configurations that train the same tensors with the same buffers.

    Knobs without an effect take their default: at depth 0 direction, schedule, backbone rate and layer
    decay; at depth 0 `fixed_stats` and `updated_stats` are `frozen`; at full depth and `at_once`
    `train_mode` is `updated_stats`; without BatchNorm all five policies are one; a linear head has no hidden layer;
    a patience of all epochs never ends a trial.
    """
    change: dict[str, Any] = {}
    policy = config.batchnorm
    if config.unfreeze_depth == 0:
        change |= {"backbone_lr": None, "unfreeze_from": "head", "unfreeze_schedule": "at_once", "layer_decay": 1.0}
        if policy in ("fixed_stats", "updated_stats"):
            policy = "frozen"
    schedule = change.get("unfreeze_schedule", config.unfreeze_schedule)
    if config.unfreeze_depth == DEPTH_MAX and schedule != "progressive":
        change["unfreeze_from"] = "head"  # all stages at the same moment: no direction left
    if config.unfreeze_depth == DEPTH_MAX and schedule == "at_once" and policy == "train_mode":
        policy = "updated_stats"
    if schedule != "head_first":
        change["head_fraction"] = 0.3
    if config.head == "linear":
        change["head_hidden"] = 256
    if config.early_stopping >= config.epochs:
        change["early_stopping"] = 0
    if not has_batchnorm:
        policy = "frozen"
    return dataclasses.replace(config, **change, batchnorm=policy)
