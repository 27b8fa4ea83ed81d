"""StudyConfig: the keys that a study file may have, with their types, defaults and descriptions."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    SkipValidation,
    field_validator,
    model_validator,
)

from harness.config.data import DataConfig
from harness.config.executors import EXECUTORS, check_executor
from harness.config.initial_weights import Weights, WeightsChoice
from harness.config.parameters import PARAMETERS, TOP_LEVEL_PARAMETERS, unknown_parameter
from harness.config.ranges import Choice, Range, Scalar
from harness.config.strict_model import StrictModel
from harness.config.trial import Shift, Strategy
from harness.safe_text import masked

OBJECTIVES = ("balanced_accuracy", "accuracy", "macro_f1", "auroc", "mcc", "log_loss")  # of results.metrics.METRICS
AUTO = 0  # epochs that are not chosen yet: see harness.config.auto_epochs


def _objective(name: str) -> str:
    if name not in OBJECTIVES:
        raise ValueError(f"must be one of {', '.join(OBJECTIVES)}, but got {name!r}")
    return name


Objective = Annotated[str, AfterValidator(_objective)]


# A value of the file, which the validators of StudyConfig read as a range. It is written in the form of the file.
Entry = Annotated[Range, SkipValidation, PlainSerializer(lambda entry: entry.to_yaml())]


WeightsKey = Annotated[
    WeightsChoice, SkipValidation, BeforeValidator(WeightsChoice.read), PlainSerializer(WeightsChoice.to_yaml)
]


class ConfirmationConfig(StrictModel):
    """The second training of the best configurations, over several seeds."""

    top: int = Field(
        1, ge=1, le=20, description="best configurations of each strategy that are trained again, beside its default"
    )
    seeds: int = Field(
        5, ge=2, le=100, description="number of seeds; each changes split, order, views and initialisation together"
    )
    equivalence: float = Field(
        0.01, ge=0, lt=1, description="two scores that differ by no more than this are practically equal"
    )


class ControlledConfig(StrictModel):
    """Changes of one parameter at a time around each strategy's winner, to measure how much each choice matters."""

    changes: int = Field(
        0, ge=0, le=100, description="changed configurations around each strategy's winner, trained after the verdict"
    )
    seeds: int = Field(3, ge=2, le=100, description="how many of the confirmation's seeds are used, at most all")


class ReportConfig(StrictModel):
    """What the page may show."""

    images: bool = Field(True, description="false leaves out every image, for private data")
    title: str | None = Field(None, description="heading of the page; without it, the study's name")


def _seconds(value: object) -> object:
    """Return the seconds of a duration such as `2h`, `90m`, `30s` or `1h30m`; other values stay as they are."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(?:(\d+(?:\.\d+)?)h)?\s*(?:(\d+(?:\.\d+)?)m)?\s*(?:(\d+(?:\.\d+)?)s)?\s*", value)
    if not found or not any(found.groups()):
        raise ValueError(f"must be a duration like 2h, 90m or 1h30m, but got {value!r}")
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds


def _epochs(value: object) -> object:
    """Return AUTO for `auto`; other values stay as they are, if they are whole numbers in the range."""
    if value == "auto":
        return AUTO
    if isinstance(value, int) and not isinstance(value, bool) and not 1 <= value <= 10_000:
        raise ValueError(f"must be auto, or a whole number in 1..10000, but got {value}")
    return value


def _written_epochs(value: int) -> int | str:
    return "auto" if value == AUTO else value


class StudyConfig(StrictModel):
    """One question about one data set: all keys of a study file."""

    description: str = Field("", description="the question, in a sentence")
    data: DataConfig = Field(default_factory=DataConfig)
    weights: WeightsKey = Field(
        WeightsChoice((Weights("bundled"),)),
        description="bundled, imagenet, none, torchvision weights by name (IMAGENET1K_V2), the path of a checkpoint, "
        "or {path: …, normalisation: {mean: […], std: […]}, name: …}; a list of these compares them, as search.weights "
        "does",
    )
    strategies: tuple[Strategy, ...] = Field(
        ("feature_extraction", "fine_tuning"), min_length=1, description="the strategies that are compared"
    )
    search: dict[str, Entry] = Field(
        default_factory=dict, description="a scalar fixes a parameter, a list or a range searches it"
    )
    try_: tuple[dict[str, Scalar], ...] = Field(
        (), alias="try", description="configurations of your own, which are always evaluated, after the default"
    )
    objective: Objective = Field(
        "balanced_accuracy",
        description=f"metric that is compared, on validation and then on test images ({', '.join(OBJECTIVES)})",
    )
    seed: int = Field(0, ge=0, description="seed from which all random numbers are derived")
    augmentation: Entry | None = Field(None, description="the same as search.augmentation")
    batch_size: Entry | None = Field(None, description="the same as search.batch_size")
    trials: int = Field(20, ge=1, description="number of trials of each strategy")
    time: Annotated[float | None, BeforeValidator(_seconds)] = Field(
        None, gt=0, description="time limit of the study, like 2h; time for the confirmation is reserved"
    )
    epochs: Annotated[int, BeforeValidator(_epochs), PlainSerializer(_written_epochs, return_type=int | str)] = Field(
        10, description="epochs of every trial, or auto: as many as about 200 optimizer steps need, from 5 to 50"
    )
    pruning: bool = Field(True, description="stop trials below the median of their strategy")
    confirmation: ConfirmationConfig = Field(default_factory=ConfirmationConfig)
    controlled: ControlledConfig = Field(default_factory=ControlledConfig)
    data_sizes: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (), description="fractions of the training images on which both winners are trained again, after the verdict"
    )
    shifts: tuple[Shift, ...] = Field(
        (),
        description="shifted copies of the test images on which the winners are scored, after the verdict: "
        + ", ".join(get_args(Shift)),
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:0, mps")
    workers: int = Field(1, ge=1, le=64, description="trials in parallel on a CPU; GPUs run one trial each")
    threads: int | None = Field(
        None, ge=1, description="CPU threads of each worker; without it, all cores at the first start, divided evenly"
    )
    precision: Literal["exact", "auto"] | None = Field(
        None,
        description="exact: float32, bit for bit what a plain loop computes; auto: bfloat16 and channels_last if a "
        "probe finds them faster; without it, exact on a CPU and auto elsewhere",
    )
    cache_gb: float | None = Field(
        None,
        ge=0,
        description="disk space for activations of frozen stages, which trials and studies share (1 GB = 1e9 bytes); "
        "0 shares nothing; without it, a quarter of the free memory or disk space, whichever is less",
    )
    executor: Annotated[str, AfterValidator(check_executor)] = Field(
        "processes", description="; ".join(f"{name} {entry.doc}" for name, entry in EXECUTORS.items())
    )
    report: ReportConfig = Field(default_factory=ReportConfig)
    tracking_uri: str | None = Field(
        None,
        description="address of an MLflow server or store, saved without its password; without it, that of "
        "MLFLOW_TRACKING_URI, and otherwise runs/mlflow.db",
    )
    storage: str | None = Field(
        None,
        description="Optuna storage (sqlite:///..., postgresql+psycopg://...) to which the trials are copied, saved "
        "without its password; without it, runs/NAME/optuna.log",
    )

    @field_validator("search", mode="before")
    @classmethod
    def _check_search(cls, value: object) -> object:
        if not isinstance(value, dict):
            raise ValueError("must map parameters to values, as in `head_lr: 1e-3`")
        checked, faults = {}, []
        for name, entry in value.items():
            if name not in PARAMETERS:
                faults.append(f"{name}: {unknown_parameter(str(name))}")
                continue
            try:
                checked[name] = PARAMETERS[name].read(entry)
            except ValueError as error:
                faults.append(f"{name}: {error}")
        if faults:
            raise ValueError("\n".join(faults))
        return checked

    @field_validator("augmentation", "batch_size", mode="before")
    @classmethod
    def _check_parameter(cls, value: object, info: Any) -> object:
        return None if value is None else PARAMETERS[info.field_name].read(value)

    @field_validator("storage")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"[a-z][a-z0-9+_]*://", value):
            raise ValueError(f"must be the address of a database, like sqlite:///optuna.db, but got {masked(value)!r}")
        return value

    @field_validator("strategies", "shifts", "data_sizes")
    @classmethod
    def _once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"names a value twice: {list(value)}")
        return value

    def ranges(self) -> dict[str, Range]:
        """Return every parameter that the file gives, in `search` or at the top level, in the order of PARAMETERS."""
        named = dict(self.search)
        for name in TOP_LEVEL_PARAMETERS:
            if getattr(self, name) is not None:
                named[name] = getattr(self, name)
        if len(self.weights.entries) > 1:
            named["weights"] = Choice(self.weights.labels)
        return {name: named[name] for name in PARAMETERS if name in named}

    @model_validator(mode="before")
    @classmethod
    def _one_place_for_weights(cls, values: Any) -> Any:
        """Move `search.weights` to the key `weights`, which holds the paths; the search knows them by their labels."""
        search = values.get("search") if isinstance(values, dict) else None
        if not isinstance(search, dict) or "weights" not in search:
            return values
        if values.get("weights") is not None:
            raise ValueError("weights is given twice, under search and at the top level; keep one")
        rest = {name: entry for name, entry in search.items() if name != "weights"}
        return {**values, "search": rest, "weights": search["weights"]}

    @model_validator(mode="after")
    def _no_second_place(self) -> StudyConfig:
        for name in TOP_LEVEL_PARAMETERS:
            if name in self.search and getattr(self, name) is not None:
                raise ValueError(f"{name} is given twice, under search and at the top level; keep one")
        return self
