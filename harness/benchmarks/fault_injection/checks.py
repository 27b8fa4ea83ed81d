"""What must hold for every study that reached its end, whatever faults were injected."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from harness.benchmarks.fault_injection.sandbox import Sandbox, numbers
from harness.results.event_types import SessionStarted, TrialFinished
from harness.results.events import Event, of_type
from harness.results.study_state import of_kind

_CREATE_TRIAL = 4  # the operation code in a line of Optuna's journal


def broken_promises(sandbox: Sandbox, wanted: dict[str, Any]) -> list[str]:
    """Return the promises that a finished study breaks, in words.

    Args:
        wanted: `numbers` of an undisturbed study.
    """
    events = sandbox.events()
    faults = []
    now = numbers(events)
    faults += [f"{key} is missing" for key in wanted if key not in now]
    faults += [f"{key} is not in an undisturbed study" for key in now if key not in wanted]
    faults += [f"{key} has other numbers" for key in wanted if key in now and now[key] != wanted[key]]
    ended = Counter(finished.record.trial_id for finished in of_type(events, TrialFinished))
    faults += [f"{trial} finished {times} times" for trial, times in ended.items() if times > 1]
    faults += _database_faults(sandbox, events)
    reported = json.loads((sandbox.root / "reports" / sandbox.name / "summary.json").read_text())["sessions"]["started"]
    started = len(of_type(events, SessionStarted))
    if reported != started:
        faults.append(f"the report names {reported} sessions, but the log has {started}")
    with contextlib.suppress(Timeout), FileLock(sandbox.home / "locks" / f"{sandbox.name}.lock", timeout=0):
        return faults
    return [*faults, "the study's lock is still held"]


def _database_faults(sandbox: Sandbox, events: list[Event]) -> list[str]:
    """Return where Optuna's journal and MLflow's database differ from the log, read without either library."""
    faults = []
    finished = [ended.record for ended in of_type(events, TrialFinished)]
    searched = len(of_kind(finished, "search"))
    journal = [json.loads(line) for line in (sandbox.home / sandbox.name / "optuna.log").read_bytes().splitlines()]
    keys = [entry["user_attrs"]["harness.key"] for entry in journal if entry["op_code"] == _CREATE_TRIAL]
    trials = [key for key in keys if "~" not in key]  # "~" marks a duplicate of a known configuration
    if sorted(trials) != sorted(set(trials)) or len(trials) != searched:
        faults.append(f"optuna.log has {len(trials)} ended trials, the log {searched}")
    with _opened(sandbox.home / "mlflow.db") as mlflow:
        faults += _unsound("mlflow.db", mlflow)
        running = mlflow.execute("select count(*) from runs where status = 'RUNNING'").fetchone()[0]
        if running:
            faults.append(f"mlflow.db has {running} runs in the state RUNNING")
        twice = mlflow.execute(
            "select count(*) from (select 1 from metrics group by run_uuid, key, step having count(*) > 1)"
        ).fetchone()[0]
        if twice:
            faults.append(f"{twice} metrics are in MLflow twice")
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
    """Return what SQLite's integrity check finds."""
    answer = connection.execute("pragma integrity_check").fetchone()[0]
    return [] if answer == "ok" else [f"{name} is damaged: {answer}"]
