"""What a study that came to its end must look like, whatever happened on the way."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from harness.benchmarks.fault_injection.sandbox import Place, numbers
from harness.results.event_types import SessionStarted, TrialFinished
from harness.results.events import Event, of_type
from harness.results.study_state import of_kind

_CREATE_TRIAL = 4  # in a line of Optuna's journal


def broken(place: Place, wanted: dict[str, Any]) -> list[str]:
    """The promises that a study which came to its end does not keep."""
    events = place.events()
    faults = []
    now = numbers(events)
    faults += [f"{key} is missing" for key in wanted if key not in now]
    faults += [f"{key} is not in an undisturbed study" for key in now if key not in wanted]
    faults += [f"{key} has other numbers" for key in wanted if key in now and now[key] != wanted[key]]
    ended = Counter(finished.record.trial_id for finished in of_type(events, TrialFinished))
    faults += [f"{trial} finished {times} times" for trial, times in ended.items() if times > 1]
    faults += _database_faults(place, events)
    told = json.loads((place.root / "reports" / place.name / "summary.json").read_text())["sessions"]["started"]
    started = len(of_type(events, SessionStarted))
    if told != started:
        faults.append(f"the report tells of {told} sessions, there were {started}")
    with contextlib.suppress(Timeout), FileLock(place.home / "locks" / f"{place.name}.lock", timeout=0):
        return faults
    return [*faults, "the lock is held"]


def _database_faults(place: Place, events: list[Event]) -> list[str]:
    """What both stores hold that they should not, read without Optuna or MLflow."""
    faults = []
    finished = [ended.record for ended in of_type(events, TrialFinished)]
    searched = len(of_kind(finished, "search"))
    journal = [json.loads(line) for line in (place.home / place.name / "optuna.log").read_bytes().splitlines()]
    keys = [entry["user_attrs"]["harness.key"] for entry in journal if entry["op_code"] == _CREATE_TRIAL]
    trials = [key for key in keys if "~" not in key]  # duplicates of known configurations are told too
    if sorted(trials) != sorted(set(trials)) or len(trials) != searched:
        faults.append(f"optuna.log holds {len(trials)} ended trials, the log {searched}")
    with _opened(place.home / "mlflow.db") as mlflow:
        faults += _unsound("mlflow.db", mlflow)
        running = mlflow.execute("select count(*) from runs where status = 'RUNNING'").fetchone()[0]
        if running:
            faults.append(f"mlflow.db has {running} runs that seem to run")
        twice = mlflow.execute(
            "select count(*) from (select 1 from metrics group by run_uuid, key, step having count(*) > 1)"
        ).fetchone()[0]
        if twice:
            faults.append(f"{twice} metrics arrived at MLflow twice")
        runs = mlflow.execute("select count(distinct run_uuid) from tags where key = 'harness.logged'").fetchone()[0]
        if runs != len(finished):
            faults.append(f"MLflow has {runs} finished trials, the log {len(finished)}")
    return faults


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path)
    try:
        yield connection
    finally:
        connection.close()


def _unsound(name: str, connection: sqlite3.Connection) -> list[str]:
    answer = connection.execute("pragma integrity_check").fetchone()[0]
    return [] if answer == "ok" else [f"{name} is damaged: {answer}"]
