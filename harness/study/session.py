"""One session of a study: the open log, the state, the executor and the trials in flight.

Search, confirmation and exploration share it. All events of a study are written here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

from harness.errors import DiskFullError, HarnessError, ResourceError
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
from harness.study.executors.base import Died, DiskFull, Executor, Handler, Message, Task, TrainTask, make_executor
from harness.study.identity import refusal
from harness.study.prepare import Prepared
from harness.study.signals import StopRequest
from harness.study.study_files import left_without_log
from harness.tracking.address import tracking_address
from harness.tracking.follower import Tracker
from harness.training.frozen_features import eviction

MAX_ATTEMPTS = 3  # a trial whose worker died so often ends as failed
POLL_SECONDS = 0.2
SIGNAL_SECONDS = 0.05  # a signal to the process group may reach a worker before it reaches us


class Observer(Protocol):
    """Shows the progress of a study; the command line's progress bars implement it."""

    def message(self, text: str) -> None:
        """Show a message to the user."""

    def working(self, what: str, done: int, of: int) -> None:
        """Show the progress of the preparation: for example, `done` of `of` images were read."""

    def phase(self, name: str, done: int, total: int) -> None:
        """Show how many trials of a phase have ended."""

    def trial_started(self, job: TrialJob) -> None:
        """Show that a trial was handed to a worker."""

    def epoch(self, job: TrialJob, record: EpochRecord) -> None:
        """Show that a trial finished an epoch."""

    def trial_finished(self, record: TrialRecord) -> None:
        """Show that a trial ended, in any state."""


class Session:
    """The log, state, executor and stores of a running study. Only this class writes to the study's log.

    The caller holds the study's lock.

    Raises:
        ConfigError: the study was started with other settings.
        HarnessError: its log is gone, or damaged.
    """

    def __init__(self, prepared: Prepared, devices: list[str], observer: Observer, stop: StopRequest) -> None:
        self.prepared, self.devices, self.observer, self.stop = prepared, devices, observer, stop
        self.study, self.folder = prepared.study, prepared.folder
        self.started = time.monotonic()
        self._check_log()
        self._check_identity()
        self.log = EventLog(self.folder.events)
        self.state = StudyState.of(self.log, self.study.objective)
        address = tracking_address(self.study.tracking_uri)
        self.tracker = Tracker(prepared.name, self.study.description, address, self.folder, self.log, observer.message)
        self.jobs: dict[str, TrialJob] = {}  # in flight, by trial_id
        self._executor: Executor | None = None

    def _check_log(self) -> None:
        """Refuse a study whose log is gone or empty beside results, which would otherwise begin again in silence."""
        left = left_without_log(self.folder)
        if left:
            raise HarnessError(
                f"the log of the study {self.folder.name} ({self.folder.events.name}) is gone or empty, but "
                f"{' and '.join(left)} are there: it has run before, and would begin again. Restore the log from a "
                "copy; without one, begin under another name (AS=newname), or remove what is left with `harness rm "
                f"{self.folder.name}`."
            )

    def _check_identity(self) -> None:
        """Refuse a study that differs from the one that was started, before anything is written."""
        stored = self._stored_fingerprint()
        if stored is None:
            return
        now = json.loads(json.dumps(self.prepared.fingerprint))
        if (error := refusal(self.prepared.name, stored, now)) is not None:
            raise error

    def _stored_fingerprint(self) -> dict[str, Any] | None:
        """Return the fingerprint that the study was started with, from the log, whose lines have checksums."""
        created = first_event(self.folder.events)
        return created.data.fingerprint if created and isinstance(created.data, StudyCreated) else None

    def append(self, data: StudyEvent, *, sync: bool = True) -> Event:
        """Write one event to the log, update the state, and wake the thread that sends to MLflow."""
        event = self.log.append(data, sync=sync)
        self.state.apply(event)
        if not isinstance(data, EpochDone):  # MLflow gets all epochs of a trial when it ends
            self.tracker.wake()
        return event

    @contextmanager
    def executing(self) -> Iterator[None]:
        """Start the workers, and end them when the block is left, even in the middle of a trial."""
        context = self.prepared.context
        sources = [path.stem for path in context.images.values()]
        folder = context.plan.folder
        assert folder is not None  # `prepare` made a plan with a folder
        with eviction.pinned(folder, self.prepared.name, sources):
            eviction.evict(folder, sources, context.plan.bytes, context.plan.budget)
            with self._signals_first():
                self._executor = make_executor(self.study.executor, context, self.devices)
            try:
                yield
            finally:
                self._executor.close()

    @property
    def places(self) -> int:
        """How many tasks may run at once."""
        assert self._executor is not None
        return self._executor.places

    def submit(self, task: Task) -> None:
        """Hand a task to a free worker."""
        assert self._executor is not None
        with self._signals_first():
            self._executor.submit(task)

    def poll(self, handle: Handler) -> None:
        """Handle the messages that have arrived, or wait a short time for one.

        Raises:
            Interrupted: a signal asked the study to stop.
            DiskFullError: a worker could not write to the disk.
        """
        assert self._executor is not None

        def checked(message: Message) -> bool:
            if isinstance(message, Died):
                time.sleep(SIGNAL_SECONDS)
            self.stop.check()
            if isinstance(message, DiskFull):
                raise DiskFullError(message.reason)
            return handle(message)

        with self._signals_first():
            self._executor.poll(checked, POLL_SECONDS)
        self.stop.check()

    @contextmanager
    def _signals_first(self) -> Iterator[None]:
        """Raise Interrupted instead of an error of the executor, if a signal to the process group caused that error."""
        try:
            yield
        except (OSError, EOFError) as error:
            time.sleep(SIGNAL_SECONDS)
            self.stop.check()
            if isinstance(error, EOFError | ConnectionError):
                raise ResourceError(
                    f"no worker process can be started ({error}); it may lack memory: set workers to a smaller number, "
                    "or find the error with `executor: inline` in the study file."
                ) from error
            raise

    def start(self, job: TrialJob, redraw: int, params: dict[str, Any]) -> None:
        """Write that a trial started and hand it to a free worker.

        The event is not synced: if it is lost, the next session asks for the same trial again.
        """
        self.append(TrialStarted(job, redraw, params), sync=False)
        self.jobs[job.trial_id] = job
        self.submit(TrainTask(job))
        self.observer.trial_started(job)

    def note_epoch(self, job: TrialJob, record: EpochRecord) -> None:
        """Write an epoch. It is not synced, because the trial's record will hold every epoch."""
        score = record.validation[self.study.objective]
        self.append(EpochDone(job.trial_id, job.attempt, record.epoch, score), sync=False)
        self.observer.epoch(job, record)

    def finish(self, job: TrialJob, record: TrialRecord) -> None:
        """Write a finished trial to the log. When this returns, it is on the disk."""
        del self.jobs[job.trial_id]
        self.append(TrialFinished(record))
        self.observer.trial_finished(record)

    def died(self, job: TrialJob, reason: str) -> None:
        """Write that the worker of a trial died: the trial runs again, or ends as failed after MAX_ATTEMPTS."""
        if job.attempt >= MAX_ATTEMPTS:
            self.finish(job, _failed_record(job, reason))
            return
        del self.jobs[job.trial_id]
        self.append(TrialInterrupted(job.trial_id, job.attempt, "worker_died", f"worker died: {reason}"))
        self.observer.message(f"{job.trial_id}: {reason}; trying again")

    def requeue(self) -> None:
        """Write the trials in flight as interrupted. The next session runs them again, and no attempt is counted."""
        for job in self.jobs.values():
            self.append(cut_off(job))
        self.jobs.clear()

    def requeue_orphans(self) -> None:
        """Do the same for trials that a killed coordinator left without an end."""
        for trial in list(self.state.in_flight.values()):
            self.append(cut_off(trial.job))


def _failed_record(job: TrialJob, reason: str) -> TrialRecord:
    """Make the record of a trial whose worker died in every attempt."""
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
