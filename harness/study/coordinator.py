"""Run a study from its start to its report.

This file is the table of contents of a study: each part (preparation, search, confirmation, exploration, stores,
report) is in a file of its own.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.analysis import verdict_text
from harness.atomic import disk_errors
from harness.config.load import LoadedStudy
from harness.data.understanding.overview import overview_of
from harness.errors import HarnessError, Interrupted
from harness.report.page import write_report
from harness.results.event_types import SessionEnded, SessionStarted, StudyCreated
from harness.results.paths import home
from harness.study import confirm, explore, export, lost_files, lost_predictions
from harness.study.environment import environment, resolve_devices
from harness.study.estimate import memory
from harness.study.executors import forkserver
from harness.study.identity import without_passwords
from harness.study.lock import held
from harness.study.prepare import prepare
from harness.study.search_loop import SlotSearch
from harness.study.session import Observer, Session
from harness.study.signals import listening
from harness.study.study_files import update_stored_study, write_data, write_study
from harness.study.sync import given_location, mirror

STORES_SECONDS = 2.0  # for each of the two stores after a signal, so that the study ends within 10 s

EndState = Literal["finished", "interrupted", "failed"]


@dataclass(frozen=True)
class StudyResult:
    """The result of `run_study`."""

    name: str
    report: Path
    sentence: str | None  # the verdict in words; None if there is no verdict
    reason: str | None  # why there is no verdict
    already_finished: bool


def run_study(loaded: LoadedStudy, observer: Observer) -> StudyResult:
    """Create or resume a study, run it to its end, and write its report.

    Raises:
        HarnessError: its class decides the exit code; `Interrupted` after a signal, when everything is saved.
    """
    with listening() as stop, _fast_thread_switching(), disk_errors(home()):
        devices = resolve_devices(loaded.study.device, loaded.study.workers)
        prepared = prepare(loaded, devices, observer.working)
        with held(prepared.folder):
            stop.before_end_at_once(forkserver.remove_traces)
            stop.before_end_at_once(lambda: prepared.folder.owner.unlink(missing_ok=True))
            stop.last_words = (
                "harness: the machine is too busy to end in time, so the study ends at once. Nothing finished is lost: "
                f"the same command continues it, and `harness report {prepared.name}` makes its page.\n"
            )
            session = Session(prepared, devices, observer, stop)
            try:
                if session.state.done and not _wants_more(session):
                    update_stored_study(prepared)
                    lost_files.restore(session)
                    result = _result(session, already_finished=True)
                    _send_missing(session)
                    return result
                memory.check_memory(prepared, devices, observer.message)
                memory.check_disk(prepared)
                _run_session(session)
                return _result(session, already_finished=False)
            finally:
                session.log.close()


def _run_session(session: Session) -> None:
    """Run one session from its start to its report, even if it is interrupted or fails."""
    search = _start(session)
    session.stop.raising = False  # from here on a signal waits until `check`, so that nothing is left half done
    state: EndState = "failed"
    try:
        session.stop.check()
        with session.executing():
            search.run()
            lost_predictions.restore(session)
            confirm.run(session)
            explore.run(session)
            lost_files.restore_mistakes(session)
        state = "finished"
    except Interrupted:
        state = "interrupted"
        raise
    finally:
        _end(session, search, state)
    if not any(record.state == "complete" for record in session.state.finished):
        raise HarnessError(_nothing_completed(session))


def _start(session: Session) -> SlotSearch:
    """Write the files and events that precede the first trial, and let both stores follow the log."""
    write_data(session.prepared)  # also of a resumed study, so that missing and changed files are written again
    if len(session.log) == 0:
        session.append(StudyCreated(without_passwords(session.study), session.prepared.fingerprint))
    # After the log's first event: a study.json without a log then shows that a log was lost, see `Session`.
    write_study(session.prepared)
    prepared, workers = session.prepared, len(session.devices)
    machine = environment(session.devices[0], prepared.context.threads, workers, prepared.threads_here)
    texts = [report.text for report in prepared.weights]
    session.append(SessionStarted(machine, session.state.sessions_started > 0, texts))
    if not session.state.filled:
        overview = overview_of(prepared.dataset, prepared.parts, prepared.data.findings)
        session.observer.message(overview.sentence())
        for warning in overview.warnings:
            session.observer.message(f"Warning: {warning}")
    for text in texts:
        session.observer.message(f"Weights: {text}")
    for sentence in prepared.chosen:
        session.observer.message(sentence)
    if prepared.threads_here is not None:
        session.observer.message(
            f"Threads: each worker keeps the {prepared.context.threads} with which the study was started, because its "
            f"numbers depend on them; a new study would take {prepared.threads_here} here, with {workers} worker(s)."
        )
    session.requeue_orphans()
    search = SlotSearch(session)
    session.tracker.start()
    return search


def _end(session: Session, search: SlotSearch, state: EndState) -> None:
    """Write the end of the session and the report, and bring both stores up to date."""
    session.requeue()  # so that no trial is shown as running afterwards, neither here nor in MLflow
    within = STORES_SECONDS if state == "interrupted" else math.inf
    search.finish(within)
    search.write_importances()
    session.append(SessionEnded(state, time.monotonic() - session.started))
    write_report(session.folder)
    session.tracker.finish(within)


def _wants_more(session: Session) -> bool:
    """Whether the study file or the flags ask for more than the finished study has, or stored predictions are lost."""
    if (session.state.search_finished or 0) < session.study.trials:
        return True
    return confirm.wants_more(session) or explore.wants_more(session) or lost_predictions.any_lost(session)


def _send_missing(session: Session) -> None:
    """Send what the stores could not take while the study ran: events, the recommended model and the report."""
    recommended = session.state.verdicts[-1].recommended_trial if session.state.verdicts else None
    if recommended is not None:
        uri = session.state.models.get(recommended)
        if uri is None or not session.tracker.holds_model(uri):
            export.log_recommended(session, recommended)
    session.tracker.finish()
    try:
        location = given_location(session.folder, session.study)
        mirror(session.folder, session.study, list(session.log), location, session.state.ended)
    except HarnessError as error:  # the study is finished, so a copy that cannot be written must not fail it
        session.observer.message(str(error))


def _result(session: Session, *, already_finished: bool) -> StudyResult:
    page = write_report(session.folder) if already_finished else session.folder.report / "index.html"
    if not session.state.verdicts:
        return StudyResult(session.prepared.name, page, None, "no strategy was confirmed", already_finished)
    last = session.state.verdicts[-1]
    sentence = verdict_text.sentence(last.verdict, session.study.objective) if last.verdict else None
    return StudyResult(session.prepared.name, page, sentence, last.verdict_reason, already_finished)


def _nothing_completed(session: Session) -> str:
    ends = "; ".join(f"{r.trial_id}: {r.state}, {r.reason}" for r in session.state.finished[:3])
    return (
        "no trial completed, so there is nothing to compare; smaller rates (search.head_lr, search.backbone_lr) "
        f"usually help. The first trials ended as follows: {ends}"
    )


@contextmanager
def _fast_thread_switching() -> Iterator[None]:
    """Let the thread that answers workers interrupt the thread that sends to MLflow within half a millisecond.

    With Python's default of 5 ms, each epoch of each trial waits that long for its answer.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-4)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
