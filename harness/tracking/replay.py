"""Replay the event log into a store of runs: which event changes which run, and what is sent again after a restart.

This file does not import MLflow: it calls the `RunStore` interface, which `mlflow_runs` implements.

Everything is sent exactly once. The metrics of a run are sent in one batch that ends with a tag (`harness.logged`), so
a run with this tag has all of them. If the tag is missing after a crash, the store compares the batch with the metrics
that the run holds and sends the others. Runs are found by their key, so no run is created twice. At every connection
the runs of the study are listed: if one of a finished trial is missing, the whole log is sent again, which adds only
what is missing.
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
from harness.tracking import mapping

EVENTS_A_MARK = 256  # events between two position tags; after a restart at most so many events are sent again


@dataclass
class Run:
    """A run of the store, with its last known status and tags."""

    run_id: str
    status: str = "RUNNING"
    tags: dict[str, str] = field(default_factory=dict)


class RunStore(Protocol):
    """The operations that the projector needs of MLflow. If a method raises, it may or may not have had its effect."""

    def open_study(self, first: Event) -> tuple[Run, bool]:
        """Find or create the study's parent run; return it, and whether it existed."""

    def trial_runs(self, parent: Run) -> dict[str, Run]:
        """Return the child runs by key. Of several runs with one key, one is returned and the others are removed."""

    def create_trial(self, parent: Run, name: str, tags: Mapping[str, str], at: str) -> Run:
        """Create a child run that started at this time."""

    def log(self, run: Run, update: mapping.Update, *, doubtful: bool = False) -> None:
        """Send metrics, parameters and tags, the tags last.

        Args:
            doubtful: part of the update may have been sent before; send only what the run lacks.
        """

    def set_status(self, run: Run, status: str, at: str | None = None) -> None:
        """Set the run's status; `at` is the time of its end."""

    def log_data(self, parent: Run) -> None:
        """Log the study's dataset once, as soon as its files exist."""

    def data_digest(self) -> str | None:
        """Return the digest of the data; None if it is not known."""


class Projector:
    """Sends the events of one study's log to a store in order, and finds out after a restart what the store holds.

    Args:
        description: the study's description.
    """

    def __init__(self, store: RunStore, description: str) -> None:
        self.store = store
        self.description = description
        self.parent: Run | None = None  # None while not connected
        self._parent_id = ""  # id of the parent run at the last connection
        self._state = StudyState()
        self._position = 0  # number of events that the store certainly holds
        self._marked = 0  # position in the parent run's tag
        self._runs: dict[str, Run] = {}  # by key
        self._doubt_until = 0  # events up to this seq may have been sent, completely or in part
        self._doubtful: set[str] = set()  # keys of the runs of those events

    def catch_up(self, events: Sequence[Event], should_stop: Callable[[], bool] = lambda: False) -> int:
        """Send the events of the log that the store lacks, and return their number.

        Args:
            should_stop: called before each event. If it returns True, the rest is left for another call, and no run
                stays marked as running.
        """
        if self.parent is None:
            self._connect(events)
        before = self._position
        pending = events[before:]
        finished = _finished_keys(pending)
        for event in pending:
            if should_stop():
                self._end_running(event.at)
                break
            self._state.apply(event)
            self._send(event, finished)
            self._position = event.seq
            if event.seq - self._marked >= EVENTS_A_MARK or isinstance(event.data, VerdictReached | SessionEnded):
                self._mark(event)
        return self._position - before

    def _end_running(self, at: str) -> None:
        """Mark running runs as killed; the events that are sent later set each run's right status."""
        for run in (*self._runs.values(), self._study_run()):
            if run.status == "RUNNING":
                self.store.set_status(run, "KILLED", at)

    def disconnect(self) -> None:
        """Forget the parent run and all runs after a failure; the next `catch_up` looks them up in the store."""
        self.parent = None
        self._runs.clear()

    @property
    def position(self) -> int:
        """How many events the store certainly holds."""
        return self._position

    def trial_run(self, trial_id: str) -> Run | None:
        """Return the run of a trial's latest attempt; None if the store has none."""
        return self._find(self._state.keys.get(trial_id, run_key(trial_id, 1)))

    def _connect(self, events: Sequence[Event]) -> None:
        parent, known = self.store.open_study(events[0])
        self._runs = self.store.trial_runs(parent) if known else {}
        if not (known and parent.run_id == self._parent_id):
            self._position = _stored_position(parent.tags.get("harness.position"), events)
            self._state = StudyState()
        if not _finished_keys(events[: self._position]) <= self._runs.keys():
            self._position = 0  # a run was removed for good
            self._state = StudyState()
        for event in events[: self._position]:
            self._state.apply(event)
        self._marked = self._position
        self._doubt_until = len(events) if known else 0
        self._doubtful = {key for event in events if (key := _key(event)) is not None} if known else set()
        self.parent, self._parent_id = parent, parent.run_id

    def _study_run(self) -> Run:
        if self.parent is None:
            raise RuntimeError("call catch_up first: it looks up the parent run")
        return self.parent

    def _send(self, event: Event, finished: set[str]) -> None:
        """Send one event. The start of a trial is left out if the same call also sends its end.

        Args:
            finished: keys of the trials that finish in this call.
        """
        match event.data:
            case TrialFinished(record):
                self._finish(event, record)
            case TestScored() as scored:
                self._score_on_test(event, scored)
            case TrialStarted(job):
                if job.key not in finished:
                    self._start(job, event.at)
            case TrialInterrupted() as interrupted:
                if interrupted.key not in finished:
                    self._interrupt(interrupted, event.at)
            case _:
                self._update_parent(event)

    def _start(self, job: TrialJob, at: str) -> None:
        run = self._find(job.key)
        if run is None:
            self._create(job, at)
        elif run.status == "KILLED":  # the coordinator ended, and the same attempt starts again
            self.store.log(run, mapping.Update(tags={"state": "running"}))
            self.store.set_status(run, "RUNNING")

    def _interrupt(self, interrupted: TrialInterrupted, at: str) -> None:
        run = self._find(interrupted.key)
        if run is None or "harness.logged" in run.tags:
            return
        # after a worker's death this attempt is over; after the coordinator's end it starts again, without the tag
        died = interrupted.cause == "worker_died"
        tags = mapping.texts(
            {"state": "interrupted", "reason": interrupted.reason if died else None}, mapping.TAG_LIMIT
        )
        self.store.log(run, mapping.Update(tags=tags))
        self.store.set_status(run, "FAILED" if died else "KILLED", at)

    def _finish(self, event: Event, record: TrialRecord) -> None:
        key = record.job.key
        run = self._find(key) or self._create(record.job, record.started_at)
        if "harness.logged" not in run.tags:
            tags = {**mapping.outcome_tags(record), "harness.logged": str(event.seq)}
            update = mapping.Update(mapping.trial_metrics(record, event.at), mapping.trial_params(record), tags)
            self.store.log(run, update, doubtful=key in self._doubtful)
        self.store.set_status(run, mapping.RUN_STATUS[record.state], event.at)

    def _score_on_test(self, event: Event, scored: TestScored) -> None:
        run, look = self.trial_run(scored.trial_id), str(scored.look)
        if run is None or run.tags.get("harness.test_look") == look:
            return
        tags = {"test_role": scored.role, "harness.test_look": look}
        update = mapping.Update(mapping.test_points(scored, mapping.milliseconds(event.at)), tags=tags)
        self.store.log(run, update, doubtful=event.seq <= self._doubt_until)

    def _update_parent(self, event: Event) -> None:
        digest = self.store.data_digest() if isinstance(event.data, StudyCreated) else None
        update = mapping.study_update(event, self._state, self.description, digest)
        if update is None:
            return
        parent = self._study_run()
        self.store.log(parent, update, doubtful=event.seq <= self._doubt_until)
        if update.status is not None:
            self.store.set_status(parent, update.status, event.at)
        self.store.log_data(parent)

    def _find(self, key: str) -> Run | None:
        """Return the run of this key; None if the store has none."""
        return self._runs.get(key)

    def _create(self, job: TrialJob, at: str) -> Run:
        role = self._state.role(job)
        tags = {**mapping.trial_tags(job, role), "state": "running"}
        run = self.store.create_trial(self._study_run(), mapping.run_name(job, role), tags, at)
        self._runs[tags["harness.key"]] = run
        return run

    def _mark(self, event: Event) -> None:
        """Set the parent run's position tag: the store holds everything up to this event."""
        self.store.log(self._study_run(), mapping.Update(tags={"harness.position": f"{event.seq} {event.at}"}))
        self._marked = event.seq


def _finished_keys(events: Sequence[Event]) -> set[str]:
    """Return the keys of the runs of all finished trials."""
    return {event.data.record.job.key for event in events if isinstance(event.data, TrialFinished)}


def _key(event: Event) -> str | None:
    """Return the key of the run that an event belongs to; None if it belongs to no trial."""
    match event.data:
        case TrialStarted(job):
            return job.key
        case TrialFinished(record):
            return record.job.key
        case TrialInterrupted() as interrupted:
            return interrupted.key
    return None


def _stored_position(tag: str | None, events: Sequence[Event]) -> int:
    """Return how many events the store holds, by the parent run's tag; 0 if the tag does not fit the log.

    A log that lost unsynced events in a power failure is shorter than the tag says, or has another event there.
    """
    seq, _, at = (tag or "").partition(" ")
    if not seq.isdigit() or not 0 < int(seq) <= len(events) or events[int(seq) - 1].at != at:
        return 0
    return int(seq)
