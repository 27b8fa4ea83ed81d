"""The walk along the event log: which event changes which run, and what a restart has to do again.

Knows no MLflow: it speaks to `RunStore`, which `mlflow_bridge` implements. Exactly once: a run's metrics go out in
one batch that ends with a tag (`harness.logged`), so a run that carries the tag has them all. Where it is missing
after a crash, the store compares the batch with what the run holds and sends the rest. Runs are found again by
their key, so no run is made twice either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from harness.results.event_types import (
    SessionEnded,
    StudyCreated,
    TestScored,
    TrialFinished,
    TrialInterrupted,
    TrialStarted,
    VerdictReached,
)
from harness.results.events import Event
from harness.results.records import TrialJob, TrialRecord
from harness.results.study_state import StudyState
from harness.results.trial_id import run_key
from harness.tracking import mapping as shown

EVENTS_A_MARK = 256  # events between two notes of the position: what a restart has to look up again


@dataclass
class Run:
    """A run of the store, with what is known of it here."""

    run_id: str
    status: str = "RUNNING"
    tags: dict[str, str] = field(default_factory=dict)


class RunStore(Protocol):
    """What the walk needs of MLflow. Every method may raise; nothing is then known about its effect."""

    def open_study(self, first: Event) -> tuple[Run, bool]:
        """The study's parent run, and whether it was there before."""

    def find_trial(self, parent: Run, key: str) -> Run | None:
        """The run of this key below the parent."""

    def create_trial(self, parent: Run, name: str, tags: Mapping[str, str], at: str) -> Run:
        """A new run below the parent, started at that time."""

    def log(self, run: Run, update: shown.Update, *, doubtful: bool = False) -> None:
        """Send metrics, parameters and tags, the tags last; leave out what a doubtful run holds already."""

    def set_status(self, run: Run, status: str, at: str | None = None) -> None:
        """Set the run's status; `at` is its end."""

    def log_data(self, parent: Run) -> None:
        """The data of the study, once, as soon as they are there."""

    def data_digest(self) -> str | None:
        """The digest of the data, where it is known."""


class Projector:
    """One study's walk; keeps its position and finds out after a restart what the store holds.

    Args:
        thorough: believe no note or tag of the store; compare every run with the log and send what it lacks.
    """

    def __init__(self, store: RunStore, description: str, *, thorough: bool = False) -> None:
        self.store = store
        self.description = description
        self._thorough = thorough
        self.parent: Run | None = None  # None while not connected
        self._parent_id = ""  # of the last connection
        self._state = StudyState()
        self._position = 0  # events that the store is known to hold
        self._marked = 0  # the position that the parent run notes
        self._runs: dict[str, Run] = {}
        self._doubt_until = 0  # events up to here may have been sent, wholly or in part
        self._doubtful: set[str] = set()  # keys of the runs they speak of

    def catch_up(self, events: Sequence[Event], enough: Callable[[], bool] = lambda: False) -> int:
        """Bring the store to the state of the whole log; returns how many events that took.

        Args:
            enough: asked before each event; once it says True the rest is left for another call, and no run is left
                that seems to be at work.
        """
        if self.parent is None:
            self._connect(events)
        before = self._position
        pending = events[before:]
        finished = {event.data.record.job.key for event in pending if isinstance(event.data, TrialFinished)}
        for event in pending:
            if enough():
                self._leave(event.at)
                break
            self._state.apply(event)
            self._send(event, finished)
            self._position = event.seq
            if event.seq - self._marked >= EVENTS_A_MARK or isinstance(event.data, VerdictReached | SessionEnded):
                self._mark(event)
        return self._position - before

    def _leave(self, at: str) -> None:
        """End what is shown as running; events that are sent later put each run into its own state again."""
        for run in (*self._runs.values(), self._study_run()):
            if run.status == "RUNNING":
                self.store.set_status(run, "KILLED", at)

    def disconnect(self) -> None:
        """Forget what can no longer be relied on; the next `catch_up` asks the store."""
        self.parent = None
        self._runs.clear()

    @property
    def position(self) -> int:
        """How many events the store holds."""
        return self._position

    def trial_run(self, trial_id: str) -> Run | None:
        """The run of a trial's latest attempt."""
        return self._find(self._state.keys.get(trial_id, run_key(trial_id, 1)))

    def _connect(self, events: Sequence[Event]) -> None:
        parent, known = self.store.open_study(events[0])
        if not (known and parent.run_id == self._parent_id):
            note = None if self._thorough else parent.tags.get("harness.position")
            self._position = _noted_position(note, events)
            self._state = StudyState()
        for event in events[: self._position]:
            self._state.apply(event)
        self._marked = self._position
        self._doubt_until = len(events) if known else 0
        self._doubtful = {key for event in events if (key := _key(event)) is not None} if known else set()
        self.parent, self._parent_id = parent, parent.run_id

    def _study_run(self) -> Run:
        if self.parent is None:
            raise RuntimeError("catch_up connects first")
        return self.parent

    def _send(self, event: Event, finished: set[str]) -> None:
        """One event; how a trial began is of no interest if the same call also tells how it ended."""
        match event.data:
            case TrialFinished(record):
                self._finish(event, record)
            case TestScored() as scored:
                self._score_on_test(event, scored)
            case TrialStarted(job):
                if job.key not in finished:
                    self._start(job, event.at)
            case TrialInterrupted() as cut:
                if cut.key not in finished:
                    self._interrupt(cut, event.at)
            case _:
                self._tell_parent(event)

    def _start(self, job: TrialJob, at: str) -> None:
        run = self._find(job.key)
        if run is None:
            self._create(job, at)
        elif run.status == "KILLED":  # the coordinator ended, and the same attempt starts again
            self.store.log(run, shown.Update(tags={"state": "running"}))
            self.store.set_status(run, "RUNNING")

    def _interrupt(self, cut: TrialInterrupted, at: str) -> None:
        run = self._find(cut.key)
        if run is None or "harness.logged" in run.tags:
            return
        # a worker's death ends this attempt for good; the coordinator's own end does not, and leaves no trace
        died = cut.cause == "worker_died"
        tags = shown.texts({"state": "interrupted", "reason": cut.reason if died else None}, shown.TAG_LIMIT)
        self.store.log(run, shown.Update(tags=tags))
        self.store.set_status(run, "FAILED" if died else "KILLED", at)

    def _finish(self, event: Event, record: TrialRecord) -> None:
        key = record.job.key
        run = self._find(key) or self._create(record.job, record.started_at)
        if "harness.logged" not in run.tags or self._thorough:
            tags = {**shown.outcome_tags(record), "harness.logged": str(event.seq)}
            update = shown.Update(shown.trial_metrics(record, event.at), shown.trial_params(record), tags)
            self.store.log(run, update, doubtful=key in self._doubtful)
        self.store.set_status(run, shown.RUN_STATUS[record.state], event.at)

    def _score_on_test(self, event: Event, scored: TestScored) -> None:
        run, look = self.trial_run(scored.trial_id), str(scored.look)
        if run is None or (run.tags.get("harness.test_look") == look and not self._thorough):
            return
        tags = {"test_role": scored.role, "harness.test_look": look}
        update = shown.Update(shown.test_points(scored, shown.milliseconds(event.at)), tags=tags)
        self.store.log(run, update, doubtful=event.seq <= self._doubt_until)

    def _tell_parent(self, event: Event) -> None:
        digest = self.store.data_digest() if isinstance(event.data, StudyCreated) else None
        update = shown.study_update(event, self._state, self.description, digest)
        if update is None:
            return
        parent = self._study_run()
        self.store.log(parent, update, doubtful=event.seq <= self._doubt_until)
        if update.status is not None:
            self.store.set_status(parent, update.status, event.at)
        self.store.log_data(parent)

    def _find(self, key: str) -> Run | None:
        """The run of this key; the store is asked only where it may hold one that is not known here."""
        run = self._runs.get(key)
        if run is None and key in self._doubtful:
            run = self.store.find_trial(self._study_run(), key)
            if run is not None:
                self._runs[key] = run
        return run

    def _create(self, job: TrialJob, at: str) -> Run:
        role = self._state.role(job)
        tags = {**shown.trial_tags(job, role), "state": "running"}
        run = self.store.create_trial(self._study_run(), shown.run_name(job, role), tags, at)
        self._runs[tags["harness.key"]] = run
        return run

    def _mark(self, event: Event) -> None:
        """Note at the parent run that everything up to this event is in the store."""
        self.store.log(self._study_run(), shown.Update(tags={"harness.position": f"{event.seq} {event.at}"}))
        self._marked = event.seq


def _key(event: Event) -> str | None:
    """The key of the run that a trial's event speaks of; None for an event that speaks of no trial."""
    match event.data:
        case TrialStarted(job):
            return job.key
        case TrialFinished(record):
            return record.job.key
        case TrialInterrupted() as cut:
            return cut.key
    return None


def _noted_position(note: str | None, events: Sequence[Event]) -> int:
    """How many events the store holds, by the parent run's note; 0 where the note is of another log.

    A log that lost unsynced epochs to a power cut is shorter than the note, or holds another event there.
    """
    seq, _, at = (note or "").partition(" ")
    if not seq.isdigit() or not 0 < int(seq) <= len(events) or events[int(seq) - 1].at != at:
        return 0
    return int(seq)
