"""StudyConfig: the one list of keys a study file may hold, and SearchSpace, what is asked for each trial."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from harness.config.executors import EXECUTORS, check_executor
from harness.config.trial import (
    Augmentation,
    BatchNormPolicy,
    Head,
    HeadInit,
    Imbalance,
    Optimizer,
    Shift,
    Strategy,
    UnfreezeFrom,
    UnfreezeSchedule,
)

Objective = Literal["balanced_accuracy", "accuracy", "macro_f1", "auroc", "mcc", "log_loss"]
BitDepth = Literal["dtype", "minmax", 8, 10, 12, 14, 16]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class FloatRange(_Model):
    """A range of real numbers, both ends included; `log` draws uniformly in the logarithm."""

    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> FloatRange:
        if not self.low <= self.high:
            raise ValueError(f"low must not exceed high, but got low {self.low} and high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log range needs low above 0, but got {self.low}")
        return self


class IntRange(_Model):
    """A range of whole numbers, both ends included."""

    low: int
    high: int

    @model_validator(mode="after")
    def _ordered(self) -> IntRange:
        if self.low > self.high:
            raise ValueError(f"low must not exceed high, but got low {self.low} and high {self.high}")
        return self


Scalar = bool | int | float | str
Entry = Scalar | tuple[Scalar, ...] | IntRange | FloatRange


@dataclass(frozen=True)
class Knob:
    """What values one field of TrialConfig may take in a study file."""

    kind: Literal["float", "int", "choice"]
    doc: str
    low: float | None = None
    high: float | None = None
    low_open: bool = False  # low itself is excluded
    choices: tuple[str, ...] = ()

    def check(self, value: object) -> Any:
        """The value in its own type; raises ValueError with the rule and what came."""
        if self.kind == "choice":
            if not isinstance(value, str) or (self.choices and value not in self.choices):
                rule = f"one of {', '.join(self.choices)}" if self.choices else "a name"
                raise ValueError(f"must be {rule}, but got {value!r}")
            return value
        if isinstance(value, bool):
            raise ValueError(f"must be a number, but got {value!r}")
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise ValueError(f"must be a number, but got {value!r}") from None
        if self.kind == "int" and number != int(number):
            raise ValueError(f"must be a whole number, but got {value!r}")
        low = self.low if self.low is not None else float("-inf")
        high = self.high if self.high is not None else float("inf")
        if not (low <= number <= high) or (self.low_open and number == low):
            raise ValueError(f"must lie in {'(' if self.low_open else '['}{low:g}, {high:g}], but got {value!r}")
        return int(number) if self.kind == "int" else number


# The knobs a study file may fix (scalar) or search (list, range), in the order they are asked.
KNOBS: dict[str, Knob] = {
    "backbone": Knob("choice", "torchvision classifiers, by name"),
    "unfreeze_depth": Knob("int", "stages that train; feature extraction is 0 by definition", 1, 5),
    "unfreeze_from": Knob("choice", "which end unfreezes first", choices=get_args(UnfreezeFrom)),
    "unfreeze_schedule": Knob("choice", "when the stages start to train", choices=get_args(UnfreezeSchedule)),
    "head_fraction": Knob("float", "share of the epochs for the head alone, with head_first", 0, 1, low_open=True),
    "head_lr": Knob("float", "peak rate of the head", 0, 1e31, low_open=True),
    "backbone_lr": Knob("float", "peak rate of the last unfrozen stage", 0, 1e31, low_open=True),
    "layer_decay": Knob("float", "rate factor from a stage to the one before it", 0, 1, low_open=True),
    "batchnorm": Knob("choice", "BatchNorm policy", choices=get_args(BatchNormPolicy)),
    "optimizer": Knob("choice", "AdamW, or SGD with Nesterov momentum 0.9", choices=get_args(Optimizer)),
    "weight_decay": Knob("float", "not on biases and normalisation", 0, 10),
    "label_smoothing": Knob("float", "share of the target spread over all classes", 0, 0.9),
    "warmup_fraction": Knob("float", "share of the steps with a rising rate", 0, 0.9),
    "gradient_clip": Knob("float", "largest norm of all gradients together; 0 does not clip", 0, 1e6),
    "ema": Knob(
        "float", "decay of a moving average of the weights, which is what is scored and kept; 0: none", 0, 0.9999
    ),
    "early_stopping": Knob("int", "epochs without a better validation score that end a trial; 0: none do", 0, 10_000),
    "head": Knob("choice", "one linear layer, or a hidden layer before it", choices=get_args(Head)),
    "head_hidden": Knob("int", "units of the hidden layer, for mlp", 1, 65536),
    "head_dropout": Knob("float", "probability, before each layer of the head", 0, 0.95),
    "head_init": Knob("choice", "of the head's last layer: as torch draws it, or zeros", choices=get_args(HeadInit)),
    "imbalance": Knob(
        "choice",
        "unequal classes: nothing, a loss weighted by 1 / class size, or every class drawn equally often",
        choices=get_args(Imbalance),
    ),
    "augmentation": Knob("choice", "recipe for training images", choices=get_args(Augmentation)),
    "mixup": Knob("float", "alpha of mixup, two images blended; 0: none", 0, 10),
    "cutmix": Knob("float", "alpha of CutMix, a box of another image pasted; 0: none", 0, 10),
    "batch_size": Knob("int", "images a step; one batch shape for each value", 2, 65536),
}
TOP_LEVEL_KNOBS = ("augmentation", "batch_size")  # may stand beside `search` in the file


def unknown_knob(name: str) -> str:
    """What to say of a knob that is none: the one that was probably meant, or all there are."""
    near = difflib.get_close_matches(name, KNOBS, n=1)
    return f"unknown; did you mean {near[0]}?" if near else f"unknown; the knobs are {', '.join(KNOBS)}"


def _entry(name: str, value: object) -> Any:
    """One entry of `search`: a checked scalar, tuple of scalars, IntRange or FloatRange."""
    knob = KNOBS[name]
    if isinstance(value, (IntRange, FloatRange)):
        value = value.model_dump()
    if isinstance(value, (list, tuple)):
        checked = tuple(knob.check(item) for item in value)
        if not checked:
            raise ValueError("a list must name at least one value")
        if len(set(checked)) != len(checked):
            raise ValueError(f"names a value twice: {list(value)}")
        return checked[0] if len(checked) == 1 else checked
    if isinstance(value, dict):
        if knob.kind == "choice":
            raise ValueError("takes a name or a list of names, not a range")
        unknown = sorted(set(value) - {"low", "high", "log"})
        if unknown or not {"low", "high"} <= set(value):
            raise ValueError(f"a range is {{low: …, high: …, log: true|false}}, but got the keys {', '.join(value)}")
        low, high = knob.check(value["low"]), knob.check(value["high"])
        if knob.kind == "int":
            if value.get("log"):
                raise ValueError("log is for ranges of real numbers; list the values instead")
            return _range(IntRange, low=low, high=high)
        return _range(FloatRange, low=low, high=high, log=bool(value.get("log", False)))
    return knob.check(value)


def _range(kind: type[IntRange] | type[FloatRange], **values: Any) -> IntRange | FloatRange:
    """The range, or a ValueError with its rule alone."""
    try:
        return kind(**values)
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


class SplitConfig(_Model):
    """How the images are divided; fractions of all images, the rest trains."""

    validation: float = Field(0.2, gt=0, lt=1, description="share of all images for choosing")
    test: float = Field(0.2, gt=0, lt=1, description="share of all images for the verdict, scored once")
    seed: int = Field(0, ge=0, description="of the draw")
    group: str | None = Field(
        None, description="regular expression on the file name (its first group, or the whole match), or a CSV column"
    )

    @model_validator(mode="after")
    def _leaves_training(self) -> SplitConfig:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation + test must leave images to train on, but got {self.validation} + {self.test}"
            )
        return self


class FolderSource(_Model):
    folder: str


class CsvSource(_Model):
    csv: str


class TorchvisionSource(_Model):
    torchvision: str


Source = Literal["rendered_cells"] | FolderSource | CsvSource | TorchvisionSource


class DataConfig(_Model):
    """Where the images come from and how they are read."""

    source: Source | None = Field(
        "rendered_cells",
        description="rendered_cells, {folder: PATH}, {csv: PATH}, {torchvision: NAME}, or null",
    )
    name: str | None = Field(
        None, max_length=80, description="what the page calls the data; the source's own name else"
    )
    wanted: str | None = Field(None, description="what to say where `source` is null and no DATA was given")
    image_size: int | Literal["native"] = Field(64, description="pixels a side, or native: the backbone's own")
    resize: Literal["stretch", "pad", "crop"] = Field(
        "stretch", description="how an image becomes square: stretch, pad with the background, or crop the middle"
    )
    bit_depth: BitDepth = Field(
        "dtype",
        description="full scale of images beyond 8 bits: dtype (65535; float images hold 0 to 1), a number of bits, "
        "or minmax of each image",
    )
    background: tuple[int, int, int] = Field((255, 255, 255), description="under transparent pixels and padding")
    on_bad: Literal["error", "skip"] = Field("error", description="unreadable files: end with a list, or skip")
    dedupe: Literal["error", "train"] = Field(
        "error", description="the same image in two splits: end with the pairs, or keep all copies in the training part"
    )
    limit: int | None = Field(
        None, ge=1, description="at most so many training and validation images; the test split stays whole"
    )
    split: SplitConfig = Field(default_factory=SplitConfig)

    @field_validator("image_size")
    @classmethod
    def _size(cls, value: int | str) -> int | str:
        if isinstance(value, int) and not 16 <= value <= 2048:
            raise ValueError(f"must lie in 16..2048 pixels, but got {value}")
        return value

    @field_validator("background")
    @classmethod
    def _colour(cls, value: tuple[int, int, int]) -> tuple[int, int, int]:
        if any(not 0 <= channel <= 255 for channel in value):
            raise ValueError(f"must be three numbers in 0..255, but got {list(value)}")
        return value


class ConfirmationConfig(_Model):
    """The second training of the best configurations, over several seeds."""

    top: int = Field(
        1, ge=1, le=20, description="best configurations of each strategy that are trained again, beside its default"
    )
    seeds: int = Field(5, ge=2, le=100, description="a seed moves split, order, views and initialisation at once")
    equivalence: float = Field(0.01, ge=0, lt=1, description="differences within ± this count as practically equal")


class ControlledConfig(_Model):
    """One choice at a time, around each strategy's winner: what would another one have cost?"""

    changes: int = Field(
        0, ge=0, le=100, description="changed configurations around each strategy's winner, trained after the verdict"
    )
    seeds: int = Field(3, ge=2, le=100, description="of the confirmation's seeds; no more than it has")


class ReportConfig(_Model):
    """What the page may hold."""

    images: bool = Field(True, description="false leaves every image out, for private data")
    title: str | None = Field(None, description="heading of the page; the study's name where it is missing")


def _seconds(value: object) -> object:
    """`2h`, `90m`, `30s`, `1h30m` or a number of seconds -> seconds."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(?:(\d+(?:\.\d+)?)h)?\s*(?:(\d+(?:\.\d+)?)m)?\s*(?:(\d+(?:\.\d+)?)s)?\s*", value)
    if not found or not any(found.groups()):
        raise ValueError(f"must be a duration like 2h, 90m or 1h30m, but got {value!r}")
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds


class StudyConfig(_Model):
    """One question about one data set: everything a study file may say."""

    description: str = Field("", description="the question, in a sentence")
    data: DataConfig = Field(default_factory=DataConfig)
    weights: str = Field("bundled", description="bundled, imagenet, none, or the path of a checkpoint")
    strategies: tuple[Strategy, ...] = Field(
        ("feature_extraction", "fine_tuning"), min_length=1, description="the sides compared"
    )
    search: dict[str, Entry] = Field(
        default_factory=dict, description="a scalar fixes a knob, a list or a range searches it"
    )
    try_: tuple[dict[str, Scalar], ...] = Field(
        (), alias="try", description="own configurations, always evaluated after the default"
    )
    objective: Objective = Field("balanced_accuracy", description="what is compared, on validation and then on test")
    seed: int = Field(0, ge=0, description="everything random derives from it")
    augmentation: Entry | None = Field(None, description="the same as search.augmentation")
    batch_size: Entry | None = Field(None, description="the same as search.batch_size")
    trials: int = Field(20, ge=1, description="slots of the budget, for each strategy")
    time: Annotated[float | None, BeforeValidator(_seconds)] = Field(
        None, gt=0, description="wall-clock bound of the study, like 2h; room for the confirmation is left"
    )
    epochs: int = Field(10, ge=1, le=10_000, description="of every trial")
    pruning: bool = Field(True, description="stop trials below the median of their strategy")
    confirmation: ConfirmationConfig = Field(default_factory=ConfirmationConfig)
    controlled: ControlledConfig = Field(default_factory=ControlledConfig)
    data_sizes: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (), description="fractions of the training images on which both winners are trained again, after the verdict"
    )
    shifts: tuple[Shift, ...] = Field(
        (),
        description="shifted copies of the test images for the winners to answer, after the verdict: "
        + ", ".join(get_args(Shift)),
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:0, mps")
    workers: int = Field(1, ge=1, le=64, description="trials side by side on a CPU; one for each GPU otherwise")
    threads: int | None = Field(
        None, ge=1, description="CPU threads of each worker; all cores shared evenly where it is missing"
    )
    precision: Literal["exact", "auto"] | None = Field(
        None,
        description="exact: float32, bit for bit what a plain loop computes; auto: bfloat16 and channels_last where a "
        "probe finds them faster; exact on a CPU and auto elsewhere where it is missing",
    )
    cache_gb: float | None = Field(
        None,
        ge=0,
        description="disk for activations of frozen stages, shared by trials and studies (1 GB = 1e9 bytes); 0 shares "
        "nothing; a quarter of the free memory or disk, whichever is less, where it is missing",
    )
    executor: Annotated[str, AfterValidator(check_executor)] = Field(
        "processes", description="; ".join(f"{name} {entry.doc}" for name, entry in EXECUTORS.items())
    )
    report: ReportConfig = Field(default_factory=ReportConfig)
    tracking_uri: str | None = Field(
        None,
        description="MLflow server or store, stored without its password; MLFLOW_TRACKING_URI, then runs/mlflow.db "
        "otherwise",
    )

    @field_validator("search", mode="before")
    @classmethod
    def _check_search(cls, value: object) -> object:
        if not isinstance(value, dict):
            raise ValueError("must map knobs to values, as in `head_lr: 1e-3`")
        checked, faults = {}, []
        for name, entry in value.items():
            if name not in KNOBS:
                faults.append(f"{name}: {unknown_knob(str(name))}")
                continue
            try:
                checked[name] = _entry(name, entry)
            except ValueError as error:
                faults.append(f"{name}: {error}")
        if faults:
            raise ValueError("\n".join(faults))
        return checked

    @field_validator("augmentation", "batch_size", mode="before")
    @classmethod
    def _check_knob(cls, value: object, info: Any) -> object:
        return None if value is None else _entry(info.field_name, value)

    @field_validator("strategies", "shifts", "data_sizes")
    @classmethod
    def _once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"names a value twice: {list(value)}")
        return value

    def entries(self) -> dict[str, Any]:
        """Every knob the file names, wherever it stands, in the order of KNOBS."""
        named = dict(self.search)
        for name in TOP_LEVEL_KNOBS:
            if getattr(self, name) is not None:
                named[name] = getattr(self, name)
        return {name: named[name] for name in KNOBS if name in named}

    @model_validator(mode="after")
    def _no_second_place(self) -> StudyConfig:
        for name in TOP_LEVEL_KNOBS:
            if name in self.search and getattr(self, name) is not None:
                raise ValueError(f"{name} stands twice: under search and beside it; keep one")
        return self
