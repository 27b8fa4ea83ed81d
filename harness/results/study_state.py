"""The state of a study, replayed from its event log: the only place that follows a study from event to event.

The coordinator keeps no other state across a restart. The tracker, the report, the doctor and `harness log` replay the
log in the same way, so they cannot disagree about which trial is the best or which session was cut off.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from harness.config.trial import TrialConfig
from harness.results.event_types import (
    ConfirmationSelected,
    ControlledSelected,
    Duplicate,
    EpochDone,
    Explored,
    ModelLogged,
    ReferenceScored,
    SearchFinished,
    SelectedConfig,
    SessionEnded,
    SessionStarted,
    StrategyExhausted,
    StudyCreated,
    TestScored,
    TrialFinished,
    TrialInterrupted,
    TrialStarted,
    VerdictReached,
)
from harness.results.events import Event
from harness.results.metrics import sign_of
from harness.results.records import STATES, EpochRecord, TrialJob, TrialRecord
from harness.results.trial_id import Kind, TrialId


@dataclass(frozen=True)
class EndedTrial:
    """A search trial that ended, or a duplicate that was drawn, with everything that Optuna gets of it."""

    key: str  # key of the attempt (see `run_key`); for a duplicate "<strategy>/<slot>~<redraw>"
    params: dict[str, Any]
    state: str
    score: float | None
    epochs: tuple[EpochRecord, ...] = ()
    record: TrialRecord | None = None  # None for a duplicate
    started_at: str | None = None  # both times as in the event log: UTC, ISO 8601
    ended_at: str | None = None

    @classmethod
    def of(
        cls,
        key: str,
        params: dict[str, Any],
        record: TrialRecord,
        started_at: str | None = None,
        ended_at: str | None = None,
    ) -> EndedTrial:
        """Make it from a finished trial's record."""
        return cls(key, params, record.state, record.score, record.epochs, record, started_at, ended_at)


@dataclass
class Slot:
    """One slot of a strategy's budget."""

    redraw: int = 0  # how many duplicates were drawn for it
    attempt: int = 1  # number of the attempt that runs, or runs next
    params: dict[str, Any] | None = None  # Optuna's parameters of a trial that has to run again
    record: TrialRecord | None = None  # of the trial that finished in it


@dataclass(frozen=True)
class InFlight:
    """A trial that started and has no end in the log."""

    job: TrialJob
    at: str  # when it started: UTC, ISO 8601


@dataclass
class StudyState:
    """The state of a study after the events that were applied to it, in order.

    `slots[strategy][k]` fills up in order; `later` holds the finished trials after the search, by id. An event that was
    applied before changes nothing, so the whole log may be applied again, or only its new events.

    Args:
        objective: the metric that ranks trials, used if the log does not name it (see `StudyCreated`).
    """

    objective: str | None = None
    seen: int = 0  # seq of the last event
    last_at: str | None = None  # time of that event
    slots: dict[str, dict[int, Slot]] = field(default_factory=lambda: defaultdict(dict))
    # In the order of finishing; of two records the later one counts.
    by_id: dict[str, TrialRecord] = field(default_factory=dict)
    finished: list[TrialRecord] = field(default_factory=list)  # of the search, in the order of finishing
    filled: int = 0  # slots of all strategies whose trial has finished
    ended: list[tuple[str, EndedTrial]] = field(default_factory=list)  # strategy, and trial or duplicate
    later: dict[str, TrialRecord] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=lambda: defaultdict(lambda: 1))  # trial_id -> next attempt
    in_flight: dict[str, InFlight] = field(default_factory=dict)  # by key of the attempt
    keys: dict[str, str] = field(default_factory=dict)  # trial_id -> key of its latest attempt
    exhausted: set[str] = field(default_factory=set)
    search_finished: int | None = None  # budget at which the search ended: slots of each strategy
    confirmations: list[ConfirmationSelected] = field(default_factory=list)
    test_scores: list[TestScored] = field(default_factory=list)
    references: dict[tuple[str, str, int], ReferenceScored] = field(default_factory=dict)  # backbone, weights, seed
    verdicts: list[VerdictReached] = field(default_factory=list)
    verdicts_at: list[str] = field(default_factory=list)  # time of each verdict
    controlled: ControlledSelected | None = None  # the last selection of controlled changes
    explored: list[Explored] = field(default_factory=list)
    models: dict[str, str] = field(default_factory=dict)  # trial_id -> URI in MLflow; the last one counts
    seconds: float = 0.0  # sum over all sessions that ended
    environment: dict[str, Any] = field(default_factory=dict)  # of the last session
    weights: list[str] = field(default_factory=list)  # what is used of each weight file, as the last session said
    sessions_started: int = 0
    session_state: str | None = None  # how the last session ended; None: it has no end, or there was no session
    session_at: str | None = None  # when the last session ended; if it has no end, when it started
    # Updated with each event, so that the cost of an event does not grow with the number of events before it.
    _params: dict[str, dict[str, Any]] = field(default_factory=dict)  # key of an attempt -> Optuna's parameters
    _by_strategy: dict[str, list[TrialRecord]] = field(default_factory=lambda: defaultdict(list))
    _by_config: dict[TrialConfig, TrialRecord] = field(default_factory=dict)
    _best: dict[str, TrialRecord] = field(default_factory=dict)
    _roles: dict[tuple[str, TrialConfig], str] = field(default_factory=dict)
    _ends: dict[str, int] = field(default_factory=lambda: {"interrupted": 0, "failed": 0, "cut_off": 0})  # of sessions
    _spent: float = 0.0  # seconds of all sessions except the open one
    _open_since: str | None = None  # start of the session that has no end yet

    @classmethod
    def of(cls, events: Iterable[Event], objective: str | None = None) -> StudyState:
        """Return the state after all events of a log; see the class for `objective`."""
        state = cls(objective)
        for event in events:
            state.apply(event)
        return state

    def apply(self, event: Event) -> None:
        """Update the state with one event. Applying an event again changes nothing."""
        if event.seq <= self.seen:
            return
        self.seen = event.seq
        self.last_at, before = event.at, self.last_at
        if isinstance(event.data, EpochDone):
            return  # most events are of this type, and the trial's record holds its epochs
        match event.data:
            case TrialStarted() as started:
                self._started(started, event.at)
            case TrialFinished(record):
                self._finished(record, event.at)
            case TrialInterrupted() as interrupted:
                self._interrupted(interrupted)
            case Duplicate() as duplicate:
                self._duplicate(duplicate, event.at)
            case StudyCreated() as created:
                self.objective = created.objective or self.objective
            case SessionStarted() as session:
                self._session_started(session, event.at, before)
            case SessionEnded(state, seconds):
                self._session_ended(state, seconds, event.at)
            case StrategyExhausted(strategy):
                self.exhausted.add(strategy)
            case SearchFinished(_, trials):
                self.search_finished = trials
            case ConfirmationSelected() as selection:
                self.confirmations.append(selection)
                for strategy, chosen in selection.configs.items():
                    self._name_roles(strategy, chosen, selection.look)
            case TestScored() as scored:
                self.test_scores.append(scored)
            case ReferenceScored() as reference:
                self.references[reference.backbone, reference.weights, reference.seed_index] = reference
            case VerdictReached() as verdict:
                self.verdicts.append(verdict)
                self.verdicts_at.append(event.at)
            case ControlledSelected() as changes:
                self.controlled = changes
            case Explored() as explored:
                self.explored.append(explored)
            case ModelLogged(uri, trial_id):
                self.models[trial_id] = uri

    def _started(self, started: TrialStarted, at: str) -> None:
        job = started.job
        self.keys[job.trial_id] = job.key
        self.in_flight[job.key] = InFlight(job, at)
        if job.kind == "search":
            self._params[job.key] = started.params
            slot = self._slot(job.strategy, job.slot)
            slot.redraw, slot.attempt, slot.params = started.redraw, job.attempt, started.params

    def _finished(self, record: TrialRecord, at: str) -> None:
        key = record.job.key
        self.keys[record.trial_id] = key
        trial = self.in_flight.pop(key, None)
        self.by_id[record.trial_id] = record
        if record.kind != "search":
            self.later[record.trial_id] = record
            return
        self.finished.append(record)
        params, started_at = self._params.get(key, {}), trial.at if trial is not None else None
        self.ended.append((record.strategy, EndedTrial.of(key, params, record, started_at, at)))
        slot = self._slot(record.strategy, record.slot)
        self.filled += slot.record is None
        slot.record = record
        self._by_strategy[record.strategy].append(record)
        self._by_config.setdefault(record.config, record)
        if self.objective is not None and is_ranked(record):
            best = self._best.get(record.strategy)
            if best is None or _sort_key(record, self.objective) < _sort_key(best, self.objective):
                self._best[record.strategy] = record

    def _interrupted(self, interrupted: TrialInterrupted) -> None:
        self.keys[interrupted.trial_id] = interrupted.key
        self.in_flight.pop(interrupted.key, None)
        died = interrupted.cause == "worker_died"
        trial = TrialId.parse(interrupted.trial_id)
        if trial.kind == "search":
            self._slot(trial.strategy, trial.slot).attempt = interrupted.attempt + died
        else:
            self.attempts[interrupted.trial_id] += died

    def _duplicate(self, duplicate: Duplicate, at: str) -> None:
        original = self.by_id.get(duplicate.of)
        score = original.score if original is not None and original.state == "complete" else None
        key = f"{TrialId('search', duplicate.strategy, duplicate.slot)}~{duplicate.redraw}"
        ended = EndedTrial(key, duplicate.params, "duplicate", score, started_at=at, ended_at=at)
        self.ended.append((duplicate.strategy, ended))
        slot = self._slot(duplicate.strategy, duplicate.slot)
        slot.redraw, slot.params = duplicate.redraw + 1, None

    def _slot(self, strategy: str, number: int) -> Slot:
        slots = self.slots[strategy]
        if number not in slots:
            slots[number] = Slot()
        return slots[number]

    # --- trials -----------------------------------------------------------------------------------------------------

    @property
    def records(self) -> list[TrialRecord]:
        """Every finished trial, in the order of finishing. If a trial was written twice, the later record counts."""
        return list(self.by_id.values())

    def searched(self, strategy: str) -> list[TrialRecord]:
        """Return the finished search trials of a strategy, in the order of finishing."""
        return self._by_strategy[strategy]

    def ranked(self, strategy: str) -> list[TrialRecord]:
        """Return the complete search trials of a strategy, best score first; the earlier slot if scores are equal."""
        return [] if self.objective is None else ranked(self.searched(strategy), self.objective)

    def best(self, strategy: str) -> TrialRecord | None:
        """Return the first of `ranked`; None if no trial completed."""
        return self._best.get(strategy)

    @property
    def best_scores(self) -> dict[str, float]:
        """The score of each strategy's best trial, in the order in which the strategies first had one."""
        return {strategy: record.score for strategy, record in self._best.items() if record.score is not None}

    def same_config(self, config: TrialConfig) -> TrialRecord | None:
        """Return the first finished search trial of this configuration; None if there is none."""
        return self._by_config.get(config)

    def role(self, job: TrialJob) -> str | None:
        """Return why a configuration was confirmed: "best", "best 2", "default of look 2"; None for other trials."""
        return self._roles.get((job.strategy, job.config)) if job.kind == "confirmation" else None

    def _name_roles(self, strategy: str, chosen: Sequence[SelectedConfig], look: int) -> None:
        rank = 0
        for entry in chosen:
            role = entry.role
            if role == "best":
                rank += 1
                role = "best" if rank == 1 else f"best {rank}"
            if look > 1:
                role += f" of look {look}"
            self._roles.setdefault((strategy, entry.config), role)  # if it is selected again, the first role stays

    # --- looks at the test split ------------------------------------------------------------------------------------

    @property
    def looks(self) -> int:
        """Number of the look at the test split that the last verdict is based on; 0 without a verdict."""
        return self.verdicts[-1].look if self.verdicts else 0

    @property
    def test_looks(self) -> int:
        """How many confirmations scored models on the test split."""
        return len({scored.look for scored in self.test_scores})

    # --- sessions ---------------------------------------------------------------------------------------------------

    def _session_started(self, session: SessionStarted, at: str, before: str | None) -> None:
        self._spent += _between(self._open_since, before)
        self._ends["cut_off"] += self.is_running
        self._open_since, self.session_state, self.session_at = at, None, at
        self.environment = session.environment
        self.weights = session.weights
        self.sessions_started += 1

    def _session_ended(self, state: str, seconds: float, at: str) -> None:
        self.seconds += seconds
        self._spent += float(seconds)
        self._open_since, self.session_state, self.session_at = None, state, at
        if state != "finished":
            self._ends[state] += 1

    @property
    def is_running(self) -> bool:
        """Whether the last session has no end yet: it is running, or it was killed."""
        return self._open_since is not None

    @property
    def done(self) -> bool:
        """Whether the last session finished the study."""
        return self.session_state == "finished"

    @property
    def sessions(self) -> dict[str, int]:
        """How many sessions `started`, and how many of them were `interrupted` by a signal, `failed` or were `cut_off`.

        A session that was cut off has no end in the log because it was killed. The last one may still run.
        """
        return {"started": self.sessions_started, **self._ends}

    @property
    def seconds_spent(self) -> float:
        """Seconds of all sessions; a session without an end counts up to its last event."""
        return self._spent + self.open_seconds

    @property
    def open_seconds(self) -> float:
        """Seconds from the start of the last session to the last event if it has no end; otherwise 0."""
        return _between(self._open_since, self.last_at)


def ranked(found: Iterable[TrialRecord], objective: str) -> list[TrialRecord]:
    """Return the complete trials that have a score, the best first; the earlier slot if scores are equal."""
    return sorted((record for record in found if is_ranked(record)), key=lambda record: _sort_key(record, objective))


def best_trial(found: Iterable[TrialRecord], strategy: str, objective: str) -> TrialRecord | None:
    """Return the first of `ranked` among a strategy's search trials; None if no trial completed."""
    own = (record for record in of_kind(found, "search") if record.strategy == strategy and is_ranked(record))
    return min(own, key=lambda record: _sort_key(record, objective), default=None)


def is_ranked(record: TrialRecord) -> bool:
    """Whether a trial completed and has a score."""
    return record.state == "complete" and record.score is not None


def _sort_key(record: TrialRecord, objective: str) -> tuple[float, int]:
    """Sort the best score first, then the earlier slot."""
    return -sign_of(objective) * (record.score or 0.0), record.slot


def of_kind(found: Iterable[TrialRecord], kind: Kind) -> list[TrialRecord]:
    """Return the records of one part of the study: the search, the confirmation, ..."""
    return [record for record in found if record.kind == kind]


def states(found: Iterable[TrialRecord], strategy: str) -> dict[str, int]:
    """Count the trials of this strategy's search that ended in each state."""
    ended = [record.state for record in of_kind(found, "search") if record.strategy == strategy]
    return {state: ended.count(state) for state in STATES}


def config_key(record: TrialRecord) -> str:
    """Return the configuration's key as the log holds it: a later version's `TrialConfig.key` may give another one."""
    stored = TrialId.parse(record.trial_id).config_key if record.kind == "confirmation" else None
    return stored or record.config.key()


def cut_off(job: TrialJob) -> TrialInterrupted:
    """Return the event for a trial that was running when the coordinator ended. It counts as no attempt."""
    return TrialInterrupted(job.trial_id, job.attempt, "coordinator_ended", "coordinator ended")


def _between(start: str | None, end: str | None) -> float:
    if start is None or end is None:
        return 0.0
    return max(0.0, (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())
