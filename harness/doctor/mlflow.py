"""Compare MLflow with the log: the database is sound and names this home, and every run is there once and has ended.

The values of a run are not compared. Events that MLflow lacks are sent, and a home that was moved is noted. Every other
fault is repaired in one way: the study's experiment is set aside, and the whole log is sent again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from harness.config.study import StudyConfig
from harness.doctor.case import Case, Finding
from harness.errors import StudyHeldError
from harness.results import sqlite_check
from harness.results.event_types import SessionEnded, TrialFinished, TrialStarted, VerdictReached
from harness.results.events import Event, of_type
from harness.results.paths import StudyFolder, home, names_in_home
from harness.safe_text import masked
from harness.study.lock import is_held
from harness.study.sync import bridge_of
from harness.tracking.address import TrackingUnavailable, address_of, is_remote, sqlite_path
from harness.tracking.mapping import study_id
from harness.tracking.mlflow_models import missing_models
from harness.tracking.mlflow_store import StudyRuns, close_store, set_study_aside, study_runs
from harness.tracking.moved_home import follow_home, former_folders


def check(case: Case) -> Iterator[Finding]:
    """Check the database, if it is on this machine, and the runs of the study."""
    study = case.study
    if case.state is None or study is None:
        return
    address = address_of(study.tracking_uri)
    where = f"MLflow at {masked(address)}" if is_remote(address) else "mlflow.db"
    path = sqlite_path(address)
    if path is not None and not path.exists():
        if not case.running:
            yield Finding(
                where,
                "it is gone",
                "no run is shown",
                "--fix sends the log again; `make study` logs the models again.",
                lambda: _send(case, study),
            )
        return
    damage = sqlite_check.find_fault(path) if path is not None else None
    if path is not None and damage is not None:
        yield _damaged(case, study, where, path, address, f"it is damaged ({damage})")
        return
    events = case.reading.events
    try:
        former = former_folders(address)
        found = study_runs(address, case.folder.name, study_id(case.folder.name, events[0]))
        models = [] if former else missing_models(address, case.state.models)
    except TrackingUnavailable as error:
        if sqlite_check.is_busy(error):
            raise
        if path is not None:
            yield _damaged(case, study, where, path, address, f"MLflow cannot read it ({error})")
        else:
            yield Finding(
                where,
                "it does not answer",
                "it is not known what it holds",
                f"`harness sync {case.folder.name}` sends what is missing when it answers.",
            )
        return
    case.checked.append(where)
    if former:
        yield Finding(
            where,
            f"it names {former[0]} as the folder of its artifacts, but the home is {home()} now",
            "models and reports are looked for in the old folder",
            "--fix lets it name the new one, and so do `make study`, `harness sync` and `make ui`.",
            lambda: _follow(address),
            first=True,
        )
    if not case.running:
        yield from _compared(case, study, where, address, found)
    for uri in models:
        yield Finding(
            where,
            f"the model {uri} is gone",
            "the recommended model cannot be loaded from MLflow",
            f"`make study NAME={case.folder.name}` logs it again, if the images are at hand.",
        )


def _follow(address: str) -> str:
    follow_home(address)
    return f"it names {home() / 'artifacts'} as the folder of its artifacts"


def _compared(case: Case, study: StudyConfig, where: str, address: str, found: StudyRuns | None) -> Iterator[Finding]:
    """Find the events that MLflow lacks, otherwise the first difference from the log."""
    events = case.reading.events
    marks = [event.seq for event in events if isinstance(event.data, VerdictReached | SessionEnded)]
    if found is None or found.position < max(marks, default=0):
        position = 0 if found is None else found.position
        yield Finding(
            where,
            f"it lacks the newest {len(events) - position} of {len(events)} events",
            "its pages show less than was run",
            "--fix sends them, as `harness sync` does.",
            lambda: _send(case, study),
        )
        return
    wrong = "the study's experiment was deleted" if found.deleted else _difference(found, events)
    if wrong is not None:

        def repair() -> str:
            identity, now = study_id(case.folder.name, events[0]), f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
            aside = set_study_aside(address, case.folder.name, identity, now)
            return f"{_send(case, study)}; the old runs are {aside}"

        yield Finding(
            where,
            wrong,
            "its pages show something else than was run",
            "--fix sets these runs aside and sends the log again.",
            repair,
        )


def _difference(found: StudyRuns, events: tuple[Event, ...]) -> str | None:
    """Return the first difference between the runs and the log; None if there is none."""
    ended = {finished.record.job.key for finished in of_type(events, TrialFinished)}
    started = {event.job.key for event in of_type(events, TrialStarted)}
    counts = Counter(found.keys)
    for key, count in counts.items():
        if key not in started | ended:
            return f"it holds {key or 'a run without a name'}, which the log does not hold"
        if count > 1:
            return f"{key} is there {count} times"
    missing = [key for key in ended if key not in counts]
    if missing:
        return f"{sorted(missing)[0]} is missing" + (f" (and {len(missing) - 1} more)" if missing[1:] else "")
    if found.running:
        return f"{found.running[0]} is shown as running, but no process runs it"
    return None


def _send(case: Case, study: StudyConfig) -> str:
    bridge = bridge_of(case.folder, study)
    sent = bridge.catch_up(case.reading.events, retry_now=True)
    bridge.log_artifacts()
    return f"{sent} events of {case.folder.name} were sent"


def _damaged(case: Case, study: StudyConfig, where: str, path: Path, address: str, what: str) -> Finding:
    """Return the finding of a database that cannot be used. It also holds the runs of other studies."""

    def repair() -> str:
        others = [name for name in names_in_home() if name != case.folder.name]
        if busy := [name for name in others if is_held(StudyFolder(name))]:
            raise StudyHeldError(f"the study {busy[0]} is running and uses it; wait until it ends")
        close_store(address)
        aside = sqlite_check.set_aside(path)
        rest = f"; `harness sync` sends those of {', '.join(others)}" if others else ""
        return f"moved to {aside.name}, and {_send(case, study)}{rest}"

    return Finding(
        where,
        what,
        "no run is shown, and none can be stored",
        "--fix moves it aside and sends the log again; `harness sync NAME` does so for every other study, and `make "
        "study` logs the models again.",
        repair,
    )
