"""The coordinator: holds the study's lock, creates or resumes, and sees the study through to its report."""

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
from harness.errors import HarnessError, Interrupted
from harness.report.page import write_report
from harness.results.event_types import SessionEnded, SessionStarted, StudyCreated
from harness.results.paths import home
from harness.study import confirm, explore, export
from harness.study.environment import environment, resolve_devices
from harness.study.estimate import memory
from harness.study.identity import stored
from harness.study.lock import held
from harness.study.prepare import prepare
from harness.study.search_loop import SlotSearch
from harness.study.session import Observer, Session
from harness.study.signals import listening
from harness.study.study_files import update_shown, write_folder
from harness.study.sync import mirror

STORES_SECONDS = 2.0  # for each of both stores to take what it lacks, after a signal: an end takes 10 s at most


@dataclass(frozen=True)
class StudyResult:
    """What a call of `run_study` came to."""

    name: str
    report: Path
    sentence: str | None  # of the verdict; None where there is none
    reason: str | None  # why there is none
    already_finished: bool


def run_study(loaded: LoadedStudy, observer: Observer) -> StudyResult:
    """Create or resume a study, run it to its end, and write its report.

    Raises:
        HarnessError: with the exit code of its kind; `Interrupted` after a signal, with everything saved.
    """
    with listening() as stop, _prompt(), disk_errors(home()):
        devices = resolve_devices(loaded.study.device, loaded.study.workers)
        prepared = prepare(loaded, devices, observer.working)
        with held(prepared.folder):
            session = Session(prepared, devices, observer, stop)
            try:
                if session.state.done and not _more_wanted(session):
                    update_shown(prepared)
                    outcome = _outcome(session, already_finished=True)
                    _send_missing(session)
                    return outcome
                memory.check(prepared, devices, observer.message)
                memory.check_disk(prepared)
                _run(session)
                return _outcome(session, already_finished=False)
            finally:
                session.log.close()


@contextmanager
def _prompt() -> Iterator[None]:
    """Let the thread that answers workers take over from the one that feeds MLflow within half a millisecond.

    With Python's 5 ms each epoch of each trial waits that long for its answer.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-4)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _run(session: Session) -> None:
    """One session from its start to its report, whatever ends it."""
    search = _open(session)
    session.stop.raising = False  # from here on a signal waits for a moment that leaves nothing half done
    ending: Literal["finished", "interrupted", "failed"] = "failed"
    try:
        session.stop.check()
        with session.executing():
            search.run()
            confirm.run(session)
            explore.run(session)
        ending = "finished"
    except Interrupted:
        ending = "interrupted"
        raise
    finally:
        session.requeue()  # nothing seems to run afterwards, neither here nor in MLflow
        within = STORES_SECONDS if ending == "interrupted" else math.inf
        search.finish(within)
        search.write_importances()
        session.append(SessionEnded(ending, time.monotonic() - session.started))
        write_report(session.folder)
        session.tracker.finish(within)
    if not any(record.state == "complete" for record in session.state.finished):
        raise HarnessError(_nothing_completed(session))


def _open(session: Session) -> SlotSearch:
    """Write what is known before trial one, and bring both stores to what the log says."""
    write_folder(session.prepared)  # a resumed study's too: whatever was lost or changed is as it was again
    if len(session.log) == 0:
        session.append(StudyCreated(stored(session.study), session.prepared.fingerprint))
    facts = environment(session.devices[0], session.prepared.context.threads, len(session.devices))
    session.append(SessionStarted(facts, resumed=session.state.sessions_started > 0))
    session.requeue_orphans()
    search = SlotSearch(session)
    session.tracker.start()
    return search


def _more_wanted(session: Session) -> bool:
    """Whether the file or the flags ask for more than the finished study has."""
    if (session.state.search_finished or 0) < session.study.trials:
        return True
    return confirm.wants_more(session) or explore.wants_more(session)


def _send_missing(session: Session) -> None:
    """What MLflow and Optuna's storage could not take while the study ran: events, the recommended model, the page."""
    recommended = session.state.verdicts[-1].recommended_trial if session.state.verdicts else None
    if recommended is not None:
        uri = session.state.models.get(recommended)
        if uri is None or not session.tracker.holds_model(uri):
            export.log_recommended(session, recommended)
    session.tracker.finish()
    try:
        mirror(session.folder, session.study, list(session.log), session.state.ended)
    except HarnessError as error:  # the study is finished; its copies are no reason to fail
        session.observer.message(str(error))


def _outcome(session: Session, *, already_finished: bool) -> StudyResult:
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
        f"usually help. The first trials ended so: {ends}"
    )
