"""One session of a study: its lock is held, its log is open, trials are in flight. Search and confirmation share it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

from harness.errors import ConfigError, DiskFullError
from harness.results.event_types import (
    EpochDone,
    StudyCreated,
    StudyEvent,
    TrialFinished,
    TrialInterrupted,
    TrialStarted,
)
from harness.results.events import Event, EventLog, first_event
from harness.results.records import EpochRecord, TrialJob, TrialRecord
from harness.results.study_state import StudyState, cut_off
from harness.study.executors import make_executor
from harness.study.executors.base import Died, Executor, Handler, Message, NoRoom, Task, TrainTask
from harness.study.identity import differences
from harness.study.prepare import Prepared
from harness.study.signals import StopRequest
from harness.tracking.address import tracking_address
from harness.tracking.follower import Tracker
from harness.training.frozen_features import eviction

MAX_ATTEMPTS = 3  # a trial whose worker died so often is failed
POLL_SECONDS = 0.2
SIGNAL_SECONDS = 0.05  # a signal to the process group may reach a worker before it reaches us


class Observer(Protocol):
    """Who watches a study: the command line's progress bars, or nobody."""

    def message(self, text: str) -> None:
        """Something a person should know."""

    def working(self, what: str, done: int, of: int) -> None:
        """Preparation: so many images read, of so many."""

    def phase(self, name: str, done: int, total: int) -> None:
        """The study as a whole: so many trials of a phase have ended."""

    def trial_started(self, job: TrialJob) -> None:
        """A trial went to a worker."""

    def epoch(self, job: TrialJob, record: EpochRecord) -> None:
        """A trial finished an epoch."""

    def trial_finished(self, record: TrialRecord) -> None:
        """A trial ended, in whichever state."""


class Session:
    """What the coordinator works with; every write of a study goes through here."""

    def __init__(self, prepared: Prepared, devices: list[str], observer: Observer, stop: StopRequest) -> None:
        self.prepared, self.devices, self.observer, self.stop = prepared, devices, observer, stop
        self.study, self.folder = prepared.study, prepared.folder
        self.started = time.monotonic()
        self._check_identity()
        self.log = EventLog(self.folder.events)
        self.state = StudyState.of(self.log, self.study.objective)
        address = tracking_address(self.study.tracking_uri)
        self.tracker = Tracker(prepared.name, self.study.description, address, self.folder, self.log, observer.message)
        self.jobs: dict[str, TrialJob] = {}  # in flight
        self._executor: Executor | None = None

    def _check_identity(self) -> None:
        """Refuse a study that is not the one that was started, before anything is written."""
        stored = self._stored_fingerprint()
        if stored is None:
            return
        now = json.loads(json.dumps(self.prepared.fingerprint))
        if changed := differences(stored, now):
            raise ConfigError(
                f"the study {self.prepared.name} was started with other settings; "
                "give the new ones a name of their own with AS=newname, or undo:",
                changed,
            )

    def _stored_fingerprint(self) -> dict[str, Any] | None:
        """What the study was started with: by its log, whose lines carry checksums."""
        created = first_event(self.folder.events)
        return created.data.fingerprint if created and isinstance(created.data, StudyCreated) else None

    def append(self, data: StudyEvent, *, sync: bool = True) -> Event:
        """Write one event and take it in; Optuna and MLflow follow."""
        event = self.log.append(data, sync=sync)
        self.state.apply(event)
        if not isinstance(data, EpochDone):  # MLflow gets a trial's epochs with its end
            self.tracker.wake()
        return event

    @contextmanager
    def executing(self) -> Iterator[None]:
        """Workers live inside the block; they are gone, in mid-trial too, when it is left."""
        context = self.prepared.context
        sources = [path.stem for path in context.images.values()]
        folder = context.plan.folder
        assert folder is not None  # prepare made a plan
        with eviction.pinned(folder, self.prepared.name, sources):
            eviction.evict(folder, sources, context.plan.bytes, context.plan.budget)
            with self._or_stopped():
                self._executor = make_executor(self.study.executor, context, self.devices)
            try:
                yield
            finally:
                self._executor.close()

    @property
    def places(self) -> int:
        """How many tasks run at once."""
        assert self._executor is not None
        return self._executor.places

    def submit(self, task: Task) -> None:
        """Hand a task to a free place."""
        assert self._executor is not None
        with self._or_stopped():
            self._executor.submit(task)

    def poll(self, handle: Handler) -> None:
        """Wait a little for messages; raises Interrupted where a signal came."""
        assert self._executor is not None

        def checked(message: Message) -> bool:
            if isinstance(message, Died):
                time.sleep(SIGNAL_SECONDS)
            self.stop.check()
            if isinstance(message, NoRoom):
                raise DiskFullError(message.reason)
            return handle(message)

        with self._or_stopped():
            self._executor.poll(checked, POLL_SECONDS)
        self.stop.check()

    @contextmanager
    def _or_stopped(self) -> Iterator[None]:
        """What a signal to the whole group does to workers and their server is no error: it is the signal's end."""
        try:
            yield
        except (OSError, EOFError):
            time.sleep(SIGNAL_SECONDS)
            self.stop.check()
            raise

    def start(self, job: TrialJob, redraw: int, params: dict[str, Any]) -> None:
        """Note a trial as started and hand it to a free place; not synced: cut off, it would be asked for again."""
        self.append(TrialStarted(job, redraw, params), sync=False)
        self.jobs[job.trial_id] = job
        self.submit(TrainTask(job))
        self.observer.trial_started(job)

    def note_epoch(self, job: TrialJob, record: EpochRecord) -> None:
        """Write an epoch; not synced, since a trial that is cut off starts again and its record holds every epoch."""
        score = record.validation[self.study.objective]
        self.append(EpochDone(job.trial_id, job.attempt, record.epoch, score), sync=False)
        self.observer.epoch(job, record)

    def finish(self, job: TrialJob, record: TrialRecord) -> None:
        """Write a finished trial to the log: from here on it cannot be lost."""
        del self.jobs[job.trial_id]
        self.append(TrialFinished(record))
        self.observer.trial_finished(record)

    def died(self, job: TrialJob, reason: str) -> None:
        """A worker died under this trial: it will be tried again, or is failed after the third time."""
        if job.attempt >= MAX_ATTEMPTS:
            self.finish(job, _lost(job, reason))
            return
        del self.jobs[job.trial_id]
        self.append(TrialInterrupted(job.trial_id, job.attempt, "worker_died", f"worker died: {reason}"))
        self.observer.message(f"{job.trial_id}: {reason}; trying again")

    def requeue(self) -> None:
        """Note the trials in flight as interrupted; the next session runs them again, with no attempt counted."""
        for job in self.jobs.values():
            self.append(cut_off(job))
        self.jobs.clear()

    def requeue_orphans(self) -> None:
        """The same for trials that a killed coordinator left without an end."""
        for trial in list(self.state.in_flight.values()):
            self.append(cut_off(trial.job))


def _lost(job: TrialJob, reason: str) -> TrialRecord:
    """The record of a trial whose worker died every time."""
    return TrialRecord(
        job=job,
        state="failed",
        reason=f"{reason}, {MAX_ATTEMPTS} times",
        epochs=(),
        best_epoch=None,
        score=None,
        seconds_alone=0.0,
        trainable_parameters=0,
        total_parameters=0,
        device="",
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
