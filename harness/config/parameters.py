"""The table of search parameters: the values of each, its labels, its default, and when it has an effect.

Everything else is derived from `PARAMETERS`: the keys of a study file, the defaults, the values that a strategy fixes,
which parameters the sampler suggests, when two configurations are equal, and the labels in log and page. A new search
parameter needs its entry here, its field in `TrialConfig`, and the code that uses it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Literal, get_args

from harness.config.backbone_specs import backbone_spec
from harness.config.batchnorm_policy import POLICIES, BatchNormPolicy, first_same
from harness.config.initial_weights import DEFAULT as DEFAULT_WEIGHTS
from harness.config.parameter import ALWAYS, Parameter, Rule
from harness.config.strategies import DEPTH_MAX, Strategy
from harness.errors import ConfigError

UnfreezeFrom = Literal["head", "stem"]
UnfreezeSchedule = Literal["at_once", "head_first", "progressive"]
Optimizer = Literal["adamw", "sgd"]
Augmentation = Literal["none", "flips", "microscopy", "natural"]
HeadSolver = Literal["adamw", "logistic"]
Head = Literal["linear", "mlp"]
HeadInit = Literal["default", "zero"]
Imbalance = Literal["none", "weighted_loss", "balanced_sampling"]


def _has_batchnorm(backbone: str) -> bool:
    try:
        return backbone_spec(backbone).has_batchnorm
    except ConfigError:  # a name from another version; building the model reports that there is no such backbone
        return True


def _same_policy(policy: BatchNormPolicy, depth: int, schedule: UnfreezeSchedule) -> BatchNormPolicy:
    """Return the first policy with the same effect: some policies are equal if all stages are frozen, or none."""
    any_frozen = depth < DEPTH_MAX or schedule != "at_once"
    return first_same(POLICIES[policy], any_frozen=any_frozen, any_unfrozen=depth > 0)


_UNFROZEN = Rule(("unfreeze_depth",), lambda depth: depth != 0)
_BY_STEPS = Rule(("head_solver",), lambda solver: solver == "adamw")  # a solver has no steps
_HAS_DIRECTION = Rule(
    ("unfreeze_depth", "unfreeze_schedule"),
    lambda depth, schedule: depth != 0 and (depth != DEPTH_MAX or schedule == "progressive"),
)

# In the order in which the sampler suggests them. Reasons for the defaults: ARCHITECTURE.md, "Defaults".
_ALL = (
    Parameter(
        "backbone",
        "choice",
        doc="torchvision classifiers, by name",
        label="backbone",
        default="resnet18",
        first_is_default=True,
        sharing=True,
    ),
    Parameter(
        "weights",
        "choice",
        doc="initial weights, each written as for the key `weights`; a checkpoint is called by its file or its name",
        label="initial weights",
        default=DEFAULT_WEIGHTS,
        short="weights",
        settled={"from_scratch": DEFAULT_WEIGHTS},
        first_is_default=True,
        off=DEFAULT_WEIGHTS,
        active=Rule(("strategy",), lambda strategy: strategy != "from_scratch"),
        asked=ALWAYS,
        has_defaults=True,
        sharing=True,
    ),
    Parameter(
        "unfreeze_depth",
        "int",
        doc="number of stages that train; 0 for feature extraction",
        label="unfreeze depth (stages)",
        default=DEPTH_MAX,
        short="depth",
        low=1,
        high=DEPTH_MAX,
        settled={"feature_extraction": 0, "from_scratch": DEPTH_MAX},
        sharing=True,
    ),
    Parameter(
        "unfreeze_from",
        "choice",
        doc="the end of the backbone at which unfreezing begins",
        label="unfreezes from",
        default="head",
        choices=get_args(UnfreezeFrom),
        active=_HAS_DIRECTION,
        sharing=True,
    ),
    Parameter(
        "unfreeze_schedule",
        "choice",
        doc="when the stages start to train",
        label="unfreeze schedule",
        default="at_once",
        choices=get_args(UnfreezeSchedule),
        settled={"feature_extraction": "at_once", "from_scratch": "at_once"},
        active=_UNFROZEN,
        sharing=True,
    ),
    Parameter(
        "head_fraction",
        "float",
        doc="share of the epochs for the head alone, with head_first",
        label="head-first share of epochs",
        default=0.3,
        short="head-first share",
        low=0,
        high=1,
        low_open=True,
        active=Rule(("unfreeze_schedule",), lambda schedule: schedule == "head_first"),
    ),
    Parameter(
        "head_solver",
        "choice",
        doc="how a head on frozen features is trained: adamw, in steps as the parameters say, or logistic, to the "
        "optimum of a logistic regression whose L2 strength is chosen on validation",
        label="head solver",
        default="adamw",
        choices=get_args(HeadSolver),
        off="adamw",
        active=Rule(("unfreeze_depth",), lambda depth: depth == 0),
        has_defaults=True,
    ),
    Parameter(
        "head_lr",
        "float",
        doc="peak learning rate of the head",
        label="head learning rate",
        default=1e-3,
        short="head rate",
        low=0,
        high=1e31,
        low_open=True,
        by_strategy={"fine_tuning": 3e-4},
        active=_BY_STEPS,
    ),
    Parameter(
        "backbone_lr",
        "float",
        doc="peak learning rate of the last unfrozen stage",
        label="backbone learning rate",
        default=None,
        short="backbone rate",
        low=0,
        high=1e31,
        low_open=True,
        by_strategy={"fine_tuning": 3e-5, "from_scratch": 1e-3},
        active=_UNFROZEN,
    ),
    Parameter(
        "layer_decay",
        "float",
        doc="factor on the learning rate from each stage to the one before it",
        label="layer decay",
        default=1.0,
        low=0,
        high=1,
        low_open=True,
        off=1.0,
        active=_UNFROZEN,
        # At depth 1 no stage has a reduced rate. A value that the file fixes stays in the configuration nevertheless.
        asked=Rule(("unfreeze_depth",), lambda depth: depth > 1),
    ),
    Parameter(
        "batchnorm",
        "choice",
        doc="BatchNorm policy",
        label="BatchNorm",
        default="frozen",
        choices=tuple(POLICIES),
        by_strategy={"fine_tuning": "fixed_stats"},
        settled={"from_scratch": "updated_stats"},
        active=Rule(("backbone",), _has_batchnorm),
        simplified=Rule(("unfreeze_depth", "unfreeze_schedule"), _same_policy),
        sharing=True,
    ),
    Parameter(
        "optimizer",
        "choice",
        doc="AdamW, or SGD with Nesterov momentum 0.9",
        label="optimizer",
        default="adamw",
        choices=get_args(Optimizer),
        active=_BY_STEPS,
    ),
    Parameter(
        "weight_decay",
        "float",
        doc="weight decay, except for biases and normalisation",
        label="weight decay",
        default=1e-4,
        low=0,
        high=10,
        active=_BY_STEPS,
    ),
    Parameter(
        "label_smoothing",
        "float",
        doc="share of the target spread over all classes",
        label="label smoothing",
        default=0.0,
        low=0,
        high=0.9,
        off=0.0,
        active=_BY_STEPS,
    ),
    Parameter(
        "warmup_fraction",
        "float",
        doc="share of the steps in which the learning rate rises",
        label="warm-up share of steps",
        default=0.1,
        short="warm-up share",
        low=0,
        high=0.9,
        active=_BY_STEPS,
    ),
    Parameter(
        "gradient_clip",
        "float",
        doc="largest norm of all gradients together; 0: no clipping",
        label="gradient clipping (norm)",
        default=0.0,
        short="gradient clipping",
        low=0,
        high=1e6,
        off=0.0,
        active=_BY_STEPS,
    ),
    Parameter(
        "ema",
        "float",
        doc="decay of a moving average of the weights, which is scored and saved instead of them; 0: none",
        label="moving average (decay)",
        default=0.0,
        short="moving average",
        low=0,
        high=0.9999,
        off=0.0,
        active=_BY_STEPS,
    ),
    Parameter(
        "early_stopping",
        "int",
        doc="epochs without a better validation score after which a trial ends; 0: never",
        label="early stopping (epochs)",
        default=0,
        short="early stopping",
        low=0,
        high=10_000,
        off=0,
        # A patience of all epochs never ends a trial.
        simplified=Rule(("epochs",), lambda patience, epochs: patience if patience < epochs else 0),
        active=_BY_STEPS,
    ),
    Parameter(
        "head",
        "choice",
        doc="one linear layer, or a hidden layer before it",
        label="head",
        default="linear",
        choices=get_args(Head),
        off="linear",
        active=_BY_STEPS,
    ),
    Parameter(
        "head_hidden",
        "int",
        doc="units of the hidden layer, with mlp",
        label="hidden units of the head",
        default=256,
        short="hidden units",
        low=1,
        high=65536,
        active=Rule(("head",), lambda head: head == "mlp"),
    ),
    Parameter(
        "head_dropout",
        "float",
        doc="probability of dropout before each layer of the head",
        label="dropout in the head",
        default=0.0,
        short="head dropout",
        low=0,
        high=0.95,
        off=0.0,
        active=_BY_STEPS,
    ),
    Parameter(
        "head_init",
        "choice",
        doc="initial values of the head's last layer: torch's random ones, or zeros",
        label="head initialisation",
        default="default",
        choices=get_args(HeadInit),
        off="default",
        active=_BY_STEPS,
    ),
    Parameter(
        "imbalance",
        "choice",
        doc="unequal class sizes: no measure, loss weighted by 1 / class size, or each class drawn equally often",
        label="class imbalance",
        default="none",
        choices=get_args(Imbalance),
        off="none",
        sharing=True,
    ),
    Parameter(
        "augmentation",
        "choice",
        doc="recipe for training images",
        label="augmentation",
        default="flips",
        choices=get_args(Augmentation),
        sharing=True,
    ),
    Parameter(
        "mixup",
        "float",
        doc="alpha of mixup, which blends two images; 0: no mixup",
        label="mixup (alpha)",
        default=0.0,
        short="mixup",
        low=0,
        high=10,
        off=0.0,
        sharing=True,
        active=_BY_STEPS,
    ),
    Parameter(
        "cutmix",
        "float",
        doc="alpha of CutMix, which pastes a box of another image; 0: no CutMix",
        label="CutMix (alpha)",
        default=0.0,
        short="CutMix",
        low=0,
        high=10,
        off=0.0,
        sharing=True,
        active=_BY_STEPS,
    ),
    Parameter(
        "batch_size",
        "int",
        doc="number of images in a training step",
        label="batch size",
        default=64,
        low=2,
        high=65536,
        sharing=True,
    ),
)
PARAMETERS: dict[str, Parameter] = {parameter.name: parameter for parameter in _ALL}
TOP_LEVEL_PARAMETERS = ("augmentation", "batch_size")  # may also be given at the top level of the file


def unknown_parameter(name: str) -> str:
    """Return the message for an unknown parameter: it suggests a similar name, or lists all parameters."""
    near = difflib.get_close_matches(name, PARAMETERS, n=1)
    return f"unknown; did you mean {near[0]}?" if near else f"unknown; the parameters are {', '.join(PARAMETERS)}"


def settled_values(strategy: Strategy) -> dict[str, Any]:
    """Return the values that a strategy fixes, and the defaults of parameters that are not active with these values."""
    found = {name: one.settled[strategy] for name, one in PARAMETERS.items() if strategy in one.settled}
    for name, one in PARAMETERS.items():
        if name not in found and found.keys() >= set(one.active.of) and not one.active(found):
            found[name] = one.default
    return found


def default_values(strategy: Strategy) -> dict[str, Any]:
    """Return every parameter's default for a strategy: the setup that practical guides recommend to try first."""
    defaults = {name: one.by_strategy.get(strategy, one.default) for name, one in PARAMETERS.items()}
    return {**defaults, **settled_values(strategy)}


def idle(config: Mapping[Any, Any]) -> set[str]:
    """Return the parameters of a configuration that have no effect: switched off, or not active."""
    return {
        name
        for name, one in PARAMETERS.items()
        if (one.off is not None and config.get(name) == one.off)
        or (config.keys() >= set(one.active.of) and not one.active(config))
    }


def label(name: str) -> str:
    """Return the label of a configuration's field on the page."""
    return PARAMETERS[name].label if name in PARAMETERS else name


def short_label(name: str) -> str:
    """Return the label of a configuration's field in a line with many fields."""
    return PARAMETERS[name].short_label if name in PARAMETERS else name
