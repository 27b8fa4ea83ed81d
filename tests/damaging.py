"""Ways to damage a finished study: bytes, tables, files that should not be there; and what doctor says of it then."""

from __future__ import annotations

import dataclasses
import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from small_study import World, records

from harness.doctor.check import Diagnosis, examine
from harness.results.event_types import Explored, SessionStarted, TestScored, TrialStarted
from harness.results.events import EventLog, scan_log
from harness.results.paths import StudyFolder, home
from harness.results.study_state import StudyState
from harness.search.optuna_journal import open_storage
from harness.training.checkpoint import load_best, save_best

DEAD = 2**22 - 1  # a process number that none has


def flip(path: Path, place: float = 0.5) -> None:
    """Change one byte, at this share of the file."""
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[min(int(len(data) * place), len(data) - 1)] ^= 0x15
    path.write_bytes(data)


def halve(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def confirmed(world: World) -> Path:
    """The checkpoint of a confirmation trial."""
    return world.folder().checkpoints / next(r.checkpoint for r in records(world) if r.kind == "confirmation")  # type: ignore[operator]


def best(world: World) -> Path:
    """The checkpoint of the best trial of fine-tuning's search."""
    own = [r for r in records(world) if r.kind == "search" and r.strategy == "fine_tuning"]
    return world.folder().checkpoints / max(own, key=lambda r: (r.score, -r.slot)).checkpoint  # type: ignore[operator]


def overtaken(world: World) -> Path:
    """Where the checkpoint of a search trial that is not the best would lie."""
    folder = world.folder().checkpoints
    return next(folder / r.checkpoint for r in records(world) if r.checkpoint and not (folder / r.checkpoint).exists())


def of_event(world: World, what: str) -> Path:
    scored = world.of(TestScored) if what == "test" else [e for e in world.of(Explored) if e.what == what]
    return world.folder().predictions / scored[0].predictions


def edit(path: Path, change: Callable[[pd.DataFrame], None]) -> None:
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    change(table)
    table.to_csv(path, index=False)


def edit_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def sql(name: str, *statements: str) -> None:
    connection = sqlite3.connect(home() / name)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def killed(world: World) -> None:
    """A session that began and started a trial anew, and was killed then."""
    log = EventLog(world.folder().events)
    log.append(SessionStarted(environment={}, resumed=True))
    began = log.of(TrialStarted)[-1]
    job = dataclasses.replace(began.job, trial_id="fine_tuning/7", slot=7, kind="search")
    log.append(dataclasses.replace(began, job=job))
    log.close()


def in_optuna(change: Callable[[optuna.Study], Any]) -> None:
    with open_storage(StudyFolder("tiny").optuna_log) as storage:
        change(optuna.load_study(study_name="tiny/fine_tuning", storage=storage))


def unknown_to_the_log() -> None:
    def add(study: optuna.Study) -> None:
        trial = study.trials[0]
        trial.user_attrs["harness.key"] = "fine_tuning/41#1"
        study.add_trial(trial)

    in_optuna(add)


def other_classes(path: Path) -> None:
    tensors, _ = load_best(path)
    save_best(path, tensors, ("one", "two", "three"))


def pin(pid: int) -> Path:
    path = home() / "cache" / "prefix" / "pins" / "other.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"pid": pid, "sources": []}))
    return path


def write(path: Path, text: str = "half") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def activations() -> Path:
    return next(iter(sorted((home() / "cache" / "prefix").glob("*/*.rows"))))


def changed_row() -> None:
    """A byte of a row of shared activations that was computed."""
    path = activations()
    noted = np.fromfile(path.with_suffix(".crc"), np.uint64)
    flip(path, (int(np.flatnonzero(noted)[0]) + 0.5) / len(noted))


def image_array() -> Path:
    return next(iter((home() / "cache" / "images").glob("*.npy")))


def copy_run(name: str) -> None:
    connection = sqlite3.connect(home() / "mlflow.db")
    [(run,)] = connection.execute(
        "SELECT run_uuid FROM tags WHERE key = 'harness.key' AND value = ?", (name,)
    ).fetchall()
    for table in ("runs", "tags", "metrics", "latest_metrics", "params"):
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        chosen = ", ".join("'copied'" if column == "run_uuid" else column for column in columns)
        connection.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {chosen} FROM {table} WHERE run_uuid = ?", (run,)
        )
    connection.commit()
    connection.close()


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as stream:
        stream.write(data)


def cut(path: Path, count: int) -> None:
    os.truncate(path, path.stat().st_size - count)


def swap_labels(table: pd.DataFrame) -> None:
    table["label"] = table["label"].to_numpy()[::-1].copy()


def remove_database(name: str) -> None:
    for suffix in ("", "-wal", "-shm"):
        (home() / f"{name}{suffix}").unlink(missing_ok=True)


def remove_journal(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def diagnosed(*, fix: bool = False) -> Diagnosis:
    return examine(World(Path(), Path()).folder(), fix=fix)


def trials(world: World) -> dict[str, Any]:
    """Every finished trial that can be read."""
    events = scan_log(world.folder().events).events
    return StudyState.of(events).by_id
