"""One real study that ran to its end, built once for all processes of a test run, and copies of it."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from damaging import remove_journal
from filelock import FileLock
from small_study import World, draw_images

from harness.tracking.address import default_address
from harness.tracking.mlflow_store import close_store

# All that a study can leave behind; what is not here are the defaults of `World.write`.
ASKED: dict[str, Any] = {"shifts": ["blur"], "data_sizes": [0.5]}


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """A folder of this run of the tests, the same for each process that takes part in it."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def once(folder: Path, build: Callable[[Path], object]) -> Path:
    """Let the first process that comes fill the folder, and the others wait for it; nobody may change it then."""
    done = folder.with_name(f"{folder.name}.done")
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a process that failed half-way
            folder.mkdir()
            build(folder)
            done.touch()
    return folder


def live_below(patch: pytest.MonkeyPatch, root: Path) -> None:
    """Home and reports lie below this folder."""
    patch.setenv("HARNESS_HOME", str(root / "home"))
    patch.setenv("HARNESS_REPORTS", str(root / "reports"))
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)


def finished_study(factory: pytest.TempPathFactory) -> Path:
    """The root of the study's world. Look at a copy of it: see `copy_of`."""
    return once(shared_folder(factory) / "finished-study", _run)


def _run(root: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        live_below(patch, root)
        made = World(root, draw_images(root / "cells"))
        made.write(**ASKED)
        made.run()
        close_store(default_address())
    remove_journal(root / "home" / "mlflow.db")


def copy_of(finished: Path, root: Path) -> World:
    """Copy the study's home, report, file and images below `root`; MLflow's addresses lead into the copy."""
    for part in ("home", "reports", "studies", "cells"):
        shutil.copytree(finished / part, root / part, dirs_exist_ok=True)
    _lead_into(root / "home" / "mlflow.db", str(finished), str(root))
    copied = World(root, root / "cells")
    copied.write(**ASKED)
    return copied


def _lead_into(database: Path, before: str, now: str) -> None:
    """Replace a folder by another one in every text of a database: MLflow notes where artifacts lie in full."""
    connection = sqlite3.connect(database)
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in tables:
        for _, column, kind, *_ in connection.execute(f"PRAGMA table_info({table})").fetchall():
            if kind.startswith(("VARCHAR", "TEXT")):
                connection.execute(
                    f"UPDATE {table} SET {column} = replace({column}, ?, ?) WHERE instr({column}, ?)",
                    (before, now, before),
                )
    connection.commit()
    connection.close()
    remove_journal(database)
