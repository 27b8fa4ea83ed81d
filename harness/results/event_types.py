"""The kinds of events in a study's log: one frozen dataclass for each, and their way to JSON and back.

How the log itself is written and read is in `events`. `StudyEvent` is the union of all kinds. `kind` is the name of a
kind in the log. Increase SCHEMA with every change that makes old lines unreadable or changes what they mean: the log
then refuses files of another schema.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar, get_args

from harness.config.from_json import restored
from harness.config.initial_weights import DEFAULT
from harness.config.trial import Shift, TrialConfig
from harness.results.records import TrialJob, TrialRecord
from harness.results.trial_id import TrialId, run_key

SCHEMA = 2

T = TypeVar("T")


@dataclass(frozen=True)
class StudyCreated:
    """The first event of a study."""

    kind: ClassVar[str] = "study_created"

    study: dict[str, Any]  # the resolved study: a StudyConfig as JSON
    fingerprint: dict[str, Any]  # everything that can change a number: see study.identity.fingerprint

    @property
    def objective(self) -> str | None:
        """The metric by which trials are compared; None if the stored study has no such key."""
        return self.study.get("objective")


@dataclass(frozen=True)
class SessionStarted:
    """A coordinator started to work on the study."""

    kind: ClassVar[str] = "session_started"

    environment: dict[str, Any]  # see study.environment
    resumed: bool
    weights: list[str] = field(default_factory=list)  # what is used of each weight file: see model.weight_files.report


@dataclass(frozen=True)
class TrialStarted:
    """A trial was handed to a worker."""

    kind: ClassVar[str] = "trial_started"

    job: TrialJob
    redraw: int  # how many duplicates were drawn for this slot before
    params: dict[str, Any]  # Optuna's parameters of a search trial; {} for other kinds


@dataclass(frozen=True)
class EpochDone:
    """A trial finished an epoch. The other numbers of the epoch are in the trial's record."""

    kind: ClassVar[str] = "epoch"

    trial_id: str
    attempt: int
    epoch: int  # 1-based
    score: float  # the objective on validation


@dataclass(frozen=True)
class TrialFinished:
    """A trial ended, in any state."""

    kind: ClassVar[str] = "trial_finished"

    record: TrialRecord


@dataclass(frozen=True)
class TrialInterrupted:
    """A trial was interrupted and will run again.

    After `worker_died` the next attempt has the next number. After `coordinator_ended` the same attempt starts again in
    the next session.
    """

    kind: ClassVar[str] = "trial_interrupted"

    trial_id: str
    attempt: int
    cause: Literal["worker_died", "coordinator_ended"]
    reason: str  # in words

    @property
    def key(self) -> str:
        """The key of this attempt: see `run_key`."""
        return run_key(self.trial_id, self.attempt)


@dataclass(frozen=True)
class Duplicate:
    """The sampler drew the configuration of another trial; the slot is drawn again."""

    kind: ClassVar[str] = "duplicate"

    strategy: str
    slot: int
    redraw: int
    config: TrialConfig
    params: dict[str, Any]  # Optuna's parameters
    of: str  # trial_id of the other trial


@dataclass(frozen=True)
class StrategyExhausted:
    """The sampler draws nothing but duplicates: the strategy gets no more slots."""

    kind: ClassVar[str] = "strategy_exhausted"

    strategy: str
    slots: int  # how many slots the strategy had


@dataclass(frozen=True)
class SearchFinished:
    """The search ended."""

    kind: ClassVar[str] = "search_finished"

    reason: Literal["budget", "time", "exhausted"]
    trials: int  # the budget: slots of each strategy


@dataclass(frozen=True)
class SelectedConfig:
    """A configuration that was selected for the confirmation."""

    config: TrialConfig
    role: str  # "best", "default" or "best+default"
    trial_id: str | None  # the search trial of this configuration; None if there is none


@dataclass(frozen=True)
class ConfirmationSelected:
    """The configurations were selected that are trained again with every seed of the confirmation."""

    kind: ClassVar[str] = "confirmation_selected"

    look: int  # 1-based number of the confirmation; each confirmation looks at the test split once
    trials: int  # the budget of the search that they were selected from: slots of each strategy
    seeds: int
    configs: dict[str, tuple[SelectedConfig, ...]]  # by strategy


@dataclass(frozen=True)
class TestScored:
    """A confirmed model was scored on the test split."""

    kind: ClassVar[str] = "test_scored"
    __test__: ClassVar[bool] = False  # pytest would collect the class as a test

    look: int
    strategy: str
    role: str  # "winner", "default" or "winner+default"
    config_key: str
    seed_index: int
    metrics: dict[str, Any]  # as results.metrics.all_metrics returns them
    predictions: str  # name of the file with the probabilities

    @property
    def trial_id(self) -> str:
        """The trial whose model was scored."""
        return str(TrialId("confirmation", self.strategy, self.seed_index, self.config_key))


@dataclass(frozen=True)
class ReferenceScored:
    """Nearest neighbours on the frozen features of a backbone were scored on the test split; nothing was trained."""

    kind: ClassVar[str] = "reference_scored"

    backbone: str
    seed_index: int
    neighbours: int  # that vote; the best number on validation
    validation_score: float
    metrics: dict[str, Any]  # as results.metrics.all_metrics returns them
    weights: str = DEFAULT  # label of the backbone's weights


@dataclass(frozen=True)
class VerdictReached:
    """The verdict was reached. The fields are blocks of summary.json, made by `analysis.verdict.conclude`."""

    kind: ClassVar[str] = "verdict"

    look: int
    verdict: dict[str, Any] | None
    verdict_reason: str | None  # why there is no verdict
    comparisons: list[dict[str, Any]]
    recommendation: dict[str, Any] | None

    @property
    def recommended_trial(self) -> str | None:
        """The confirmation trial whose model is recommended; None if no model is."""
        return (self.recommendation or {}).get("trial_id")

    @property
    def recommended_strategy(self) -> str | None:
        """The strategy that is recommended; None if none is."""
        return (self.recommendation or {}).get("strategy")


@dataclass(frozen=True)
class Explored:
    """A model was scored on the test split after the verdict. The score is not used for any choice."""

    kind: ClassVar[str] = "explored"

    what: Literal["data_size", "shift"]
    strategy: str
    config_key: str
    seed_index: int
    metrics: dict[str, Any]  # as results.metrics.all_metrics returns them
    predictions: str  # name of the file with the probabilities
    fraction: float | None = None  # for data_size: fraction of the training images
    train_images: int | None = None  # for data_size: their number
    shift: Shift | None = None  # for shift: its name

    @property
    def trial_id(self) -> str:
        """The trial whose model was scored."""
        kind: Literal["data_size", "confirmation"] = "data_size" if self.what == "data_size" else "confirmation"
        return str(TrialId(kind, self.strategy, self.seed_index, self.config_key, self.fraction))


@dataclass(frozen=True)
class ControlledChange:
    """The configuration of a winner with one parameter changed."""

    parameter: str
    value: Any
    config: TrialConfig


@dataclass(frozen=True)
class ControlledSelected:
    """The changed configurations of the winners were selected for training, each with one parameter changed."""

    kind: ClassVar[str] = "controlled_selected"

    seeds: int
    configs: dict[str, tuple[ControlledChange, ...]]  # by strategy


@dataclass(frozen=True)
class ModelLogged:
    """The recommended model was logged to MLflow."""

    kind: ClassVar[str] = "model_logged"

    uri: str
    trial_id: str
    validation_score: float | None


@dataclass(frozen=True)
class SessionEnded:
    """A coordinator stopped working on the study. A coordinator that was killed writes no such event."""

    kind: ClassVar[str] = "session_ended"

    state: Literal["finished", "interrupted", "failed"]
    seconds: float  # of this session


StudyEvent = (
    StudyCreated
    | SessionStarted
    | TrialStarted
    | EpochDone
    | TrialFinished
    | TrialInterrupted
    | Duplicate
    | StrategyExhausted
    | SearchFinished
    | ConfirmationSelected
    | TestScored
    | ReferenceScored
    | VerdictReached
    | Explored
    | ControlledSelected
    | ModelLogged
    | SessionEnded
)
EVENT_TYPES: tuple[type[StudyEvent], ...] = get_args(StudyEvent)
_BY_KIND: dict[str, type[StudyEvent]] = {each.kind: each for each in EVENT_TYPES}


def to_json(event: StudyEvent) -> dict[str, Any]:
    """Return the event's fields as plain JSON values."""
    return dataclasses.asdict(event)


def from_json(kind: str, values: dict[str, Any]) -> StudyEvent:
    """Return the event that `to_json` made these values of.

    Raises:
        KeyError, TypeError: there is no such kind, or the fields do not fit the kind.
    """
    event_type = _BY_KIND[kind]
    if kind not in _PARTS:
        return restored(event_type, values)
    return restored(event_type, values | {name: part(values[name]) for name, part in _PARTS[kind].items()})


def _by_strategy(entry: type[T]) -> Callable[[dict[str, list[dict[str, Any]]]], dict[str, tuple[T, ...]]]:
    """Return a function that reads a list of entries for each strategy; every entry holds a configuration."""

    def read(configs: dict[str, list[dict[str, Any]]]) -> dict[str, tuple[T, ...]]:
        return {strategy: tuple([one(values) for values in each]) for strategy, each in configs.items()}

    def one(values: dict[str, Any]) -> T:
        return restored(entry, values | {"config": TrialConfig.from_json(values["config"])})

    return read


_PARTS: dict[str, dict[str, Callable[[Any], Any]]] = {
    TrialStarted.kind: {"job": TrialJob.from_json},
    TrialFinished.kind: {"record": TrialRecord.from_json},
    Duplicate.kind: {"config": TrialConfig.from_json},
    ConfirmationSelected.kind: {"configs": _by_strategy(SelectedConfig)},
    ControlledSelected.kind: {"configs": _by_strategy(ControlledChange)},
}
