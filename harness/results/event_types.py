"""The kinds of events that a study's log holds: one frozen dataclass each, to JSON and back.

`StudyEvent` is any of them. `kind` is the word for it in the log. A change that makes old lines unreadable, or lets
them say something else, counts SCHEMA up: the log then refuses files of another number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar, get_args

from harness.config.from_json import restored
from harness.config.trial import TrialConfig
from harness.results.records import TrialJob, TrialRecord
from harness.results.trial_id import TrialId, run_key

SCHEMA = 1

T = TypeVar("T")


@dataclass(frozen=True)
class StudyCreated:
    """The first event of a study."""

    kind: ClassVar[str] = "study_created"

    study: dict[str, Any]  # resolved, as a StudyConfig is dumped to JSON
    fingerprint: dict[str, Any]  # what decides the study's numbers: see study.prepare.fingerprint

    @property
    def objective(self) -> str | None:
        """The metric that the study is about; None if the study does not say."""
        return self.study.get("objective")


@dataclass(frozen=True)
class SessionStarted:
    """A coordinator began to work on the study."""

    kind: ClassVar[str] = "session_started"

    environment: dict[str, Any]  # see study.environment
    resumed: bool


@dataclass(frozen=True)
class TrialStarted:
    """A trial went to a worker."""

    kind: ClassVar[str] = "trial_started"

    job: TrialJob
    redraw: int  # how many known configurations were drawn for this slot before
    params: dict[str, Any]  # Optuna's, of a search trial; {} for other kinds


@dataclass(frozen=True)
class EpochDone:
    """A trial finished an epoch. Its other numbers come with the trial's record."""

    kind: ClassVar[str] = "epoch"

    trial_id: str
    attempt: int
    epoch: int  # 1-based
    score: float  # the objective on validation


@dataclass(frozen=True)
class TrialFinished:
    """A trial ended, in whichever state."""

    kind: ClassVar[str] = "trial_finished"

    record: TrialRecord


@dataclass(frozen=True)
class TrialInterrupted:
    """A trial was cut off; it is tried again.

    With `worker_died` this attempt is over, and the next one has another number. With `coordinator_ended` the same
    attempt starts again in the next session.
    """

    kind: ClassVar[str] = "trial_interrupted"

    trial_id: str
    attempt: int
    cause: Literal["worker_died", "coordinator_ended"]
    reason: str  # for a person

    @property
    def key(self) -> str:
        """Names the attempt: see `run_key`."""
        return run_key(self.trial_id, self.attempt)


@dataclass(frozen=True)
class Duplicate:
    """The sampler drew a configuration that another trial has; the slot is drawn again."""

    kind: ClassVar[str] = "duplicate"

    strategy: str
    slot: int
    redraw: int
    config: TrialConfig
    params: dict[str, Any]  # Optuna's
    of: str  # trial_id of the other one


@dataclass(frozen=True)
class StrategyExhausted:
    """The sampler draws only known configurations: the strategy gets no more slots."""

    kind: ClassVar[str] = "strategy_exhausted"

    strategy: str
    slots: int  # that it had


@dataclass(frozen=True)
class SearchFinished:
    """The search ended."""

    kind: ClassVar[str] = "search_finished"

    reason: Literal["budget", "time", "exhausted"]
    trials: int  # budget of slots of each strategy


@dataclass(frozen=True)
class SelectedConfig:
    """A configuration that is confirmed."""

    config: TrialConfig
    role: str  # "best", "default" or "best+default"
    trial_id: str | None  # of the search trial that had it, if one had


@dataclass(frozen=True)
class ConfirmationSelected:
    """The configurations that are trained again over the confirmation's seeds."""

    kind: ClassVar[str] = "confirmation_selected"

    look: int  # 1-based: how many times the study has come to its confirmation
    trials: int  # budget of slots of each strategy that they were chosen from
    seeds: int
    configs: dict[str, tuple[SelectedConfig, ...]]  # by strategy


@dataclass(frozen=True)
class TestScored:
    """A confirmed model was scored on the test split."""

    kind: ClassVar[str] = "test_scored"
    __test__: ClassVar[bool] = False  # pytest would take the class for a test

    look: int
    strategy: str
    role: str  # "winner", "default" or "winner+default"
    config_key: str
    seed_index: int
    metrics: dict[str, Any]  # of results.metrics.all_metrics
    predictions: str  # name of the file

    @property
    def trial_id(self) -> str:
        """The trial whose model was scored."""
        return str(TrialId("confirmation", self.strategy, self.seed_index, self.config_key))


@dataclass(frozen=True)
class VerdictReached:
    """The study's answer: the blocks of summary.json that report.verdict.conclude made."""

    kind: ClassVar[str] = "verdict"

    look: int
    verdict: dict[str, Any] | None
    verdict_reason: str | None  # why there is no verdict
    comparisons: list[dict[str, Any]]
    recommendation: dict[str, Any] | None

    @property
    def recommended_trial(self) -> str | None:
        """The confirmation trial whose model is recommended; None if nothing is."""
        return (self.recommendation or {}).get("trial_id")

    @property
    def recommended_strategy(self) -> str | None:
        """The strategy that is recommended; None if none is."""
        return (self.recommendation or {}).get("strategy")


@dataclass(frozen=True)
class Explored:
    """After the verdict, a model was scored on the test split; nothing is chosen by it."""

    kind: ClassVar[str] = "explored"

    what: Literal["data_size", "shift"]
    strategy: str
    config_key: str
    seed_index: int
    metrics: dict[str, Any]  # of results.metrics.all_metrics
    predictions: str  # name of the file
    fraction: float | None = None  # data_size: of the training images
    train_images: int | None = None  # data_size: how many they were
    shift: str | None = None  # shift: its name

    @property
    def trial_id(self) -> str:
        """The trial whose model was scored."""
        kind: Literal["data_size", "confirmation"] = "data_size" if self.what == "data_size" else "confirmation"
        return str(TrialId(kind, self.strategy, self.seed_index, self.config_key, self.fraction))


@dataclass(frozen=True)
class ControlledChange:
    """A winner's configuration with another value of one parameter."""

    parameter: str
    value: Any
    config: TrialConfig


@dataclass(frozen=True)
class ControlledSelected:
    """The changes of the winners that are trained, one parameter at a time."""

    kind: ClassVar[str] = "controlled_selected"

    seeds: int
    configs: dict[str, tuple[ControlledChange, ...]]  # by strategy


@dataclass(frozen=True)
class ModelLogged:
    """The recommended model went to MLflow."""

    kind: ClassVar[str] = "model_logged"

    uri: str
    trial_id: str
    validation_score: float | None


@dataclass(frozen=True)
class SessionEnded:
    """A coordinator stopped working on the study. A killed one leaves no such event."""

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
    | VerdictReached
    | Explored
    | ControlledSelected
    | ModelLogged
    | SessionEnded
)
EVENT_TYPES: tuple[type[StudyEvent], ...] = get_args(StudyEvent)
_BY_KIND: dict[str, type[StudyEvent]] = {each.kind: each for each in EVENT_TYPES}


def to_json(event: StudyEvent) -> dict[str, Any]:
    """The event's fields as plain JSON values."""
    return dataclasses.asdict(event)


def from_json(kind: str, values: dict[str, Any]) -> StudyEvent:
    """Back from `to_json`.

    Raises:
        KeyError, TypeError: there is no such kind, or its fields are others.
    """
    made = _BY_KIND[kind]
    if kind not in _PARTS:
        return restored(made, values)
    return restored(made, values | {name: part(values[name]) for name, part in _PARTS[kind].items()})


def _by_strategy(entry: type[T]) -> Callable[[dict[str, list[dict[str, Any]]]], dict[str, tuple[T, ...]]]:
    """Reads entries that hold a configuration, a list of them for each strategy."""

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
