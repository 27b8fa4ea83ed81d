"""The walk along the event log: which event changes which run, and what a restart has to do again.

Knows no MLflow: it speaks to `RunStore`, which `mlflow_bridge` implements. Exactly once: a run's metrics go out in
one batch that ends with a tag (`harness.logged`), so a run that carries the tag has them all. Where it is missing
after a crash, the store compares the batch with what the run holds and sends the rest. Runs are found again by
their key, so no run is made twice either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from harness.results.events import Event
from harness.results.records import TrialRecord
from harness.tracking import projection as shown
from harness.tracking.ledger import Ledger, event_key, run_key

EVENTS_A_MARK = 256  # events between two notes of the position: what a restart has to look up again
_ABOUT_TRIALS = ("trial_started", "trial_interrupted", "trial_finished")


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
        self._ledger = Ledger()
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
        finished = {event_key(event) for event in pending if event.kind == "trial_finished"}
        for event in pending:
            if enough():
                self._leave(event.at)
                break
            self._ledger.remember(event)
            self._send(event, finished)
            self._position = event.seq
            if event.seq - self._marked >= EVENTS_A_MARK or event.kind in ("verdict", "session_ended"):
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
        return self._find(self._ledger.keys.get(trial_id, run_key(trial_id, 1)))

    def _connect(self, events: Sequence[Event]) -> None:
        parent, known = self.store.open_study(events[0])
        if not (known and parent.run_id == self._parent_id):
            note = None if self._thorough else parent.tags.get("harness.position")
            self._position = _noted_position(note, events)
            self._ledger = Ledger()
        for event in events[: self._position]:
            self._ledger.remember(event)
        self._marked = self._position
        self._doubt_until = len(events) if known else 0
        self._doubtful = {event_key(event) for event in events if event.kind in _ABOUT_TRIALS} if known else set()
        self.parent, self._parent_id = parent, parent.run_id

    def _study_run(self) -> Run:
        if self.parent is None:
            raise RuntimeError("catch_up connects first")
        return self.parent

    def _send(self, event: Event, finished: set[str]) -> None:
        """One event; how a trial began is of no interest where the same call also tells how it ended."""
        if event.kind == "trial_finished":
            self._finish(event)
        elif event.kind == "test_scored":
            self._score_on_test(event)
        elif event.kind not in _ABOUT_TRIALS:
            self._tell_parent(event)
        elif event_key(event) not in finished:
            self._start(event) if event.kind == "trial_started" else self._interrupt(event)

    def _start(self, event: Event) -> None:
        run = self._find(event_key(event))
        if run is None:
            self._create(event.data, event.at)
        elif run.status == "KILLED":  # the coordinator ended, and the same attempt starts again
            self.store.log(run, shown.Update(tags={"state": "running"}))
            self.store.set_status(run, "RUNNING")

    def _interrupt(self, event: Event) -> None:
        run = self._find(event_key(event))
        if run is None or "harness.logged" in run.tags:
            return
        reason = str(event.data.get("reason") or "")
        # a worker's death ends this attempt for good; the coordinator's own end does not, and leaves no trace
        died = reason.startswith("worker died")
        tags = shown.texts({"state": "interrupted", "reason": reason if died else None}, shown.TAG_LIMIT)
        self.store.log(run, shown.Update(tags=tags))
        self.store.set_status(run, "FAILED" if died else "KILLED", event.at)

    def _finish(self, event: Event) -> None:
        record = TrialRecord.from_json(event.data)
        key = event_key(event)
        run = self._find(key) or self._create(event.data, record.started_at)
        if "harness.logged" not in run.tags or self._thorough:
            tags = {**shown.outcome_tags(record), "harness.logged": str(event.seq)}
            update = shown.Update(shown.trial_metrics(record, event.at), shown.trial_params(record), tags)
            self.store.log(run, update, doubtful=key in self._doubtful)
        self.store.set_status(run, shown.RUN_STATUS[record.state], event.at)

    def _score_on_test(self, event: Event) -> None:
        data = event.data
        trial_id = f"confirmation/{data['strategy']}/{data['config_key']}/{data['seed_index']}"
        run, look = self.trial_run(trial_id), str(data["look"])
        if run is None or (run.tags.get("harness.test_look") == look and not self._thorough):
            return
        tags = {"test_role": str(data["role"]), "harness.test_look": look}
        update = shown.Update(shown.test_points(data, shown.milliseconds(event.at)), tags=tags)
        self.store.log(run, update, doubtful=event.seq <= self._doubt_until)

    def _tell_parent(self, event: Event) -> None:
        digest = self.store.data_digest() if event.kind == "study_created" else None
        update = shown.study_update(event, self._ledger, self.description, digest)
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

    def _create(self, data: Mapping[str, Any], at: str) -> Run:
        role = self._ledger.role(data)
        tags = {**shown.trial_tags(data, role), "state": "running"}
        run = self.store.create_trial(self._study_run(), shown.run_name(data, role), tags, at)
        self._runs[tags["harness.key"]] = run
        return run

    def _mark(self, event: Event) -> None:
        """Note at the parent run that everything up to this event is in the store."""
        self.store.log(self._study_run(), shown.Update(tags={"harness.position": f"{event.seq} {event.at}"}))
        self._marked = event.seq


def _noted_position(note: str | None, events: Sequence[Event]) -> int:
    """How many events the store holds, by the parent run's note; 0 where the note is of another log.

    A log that lost unsynced epochs to a power cut is shorter than the note, or holds another event there.
    """
    seq, _, at = (note or "").partition(" ")
    if not seq.isdigit() or not 0 < int(seq) <= len(events) or events[int(seq) - 1].at != at:
        return 0
    return int(seq)
