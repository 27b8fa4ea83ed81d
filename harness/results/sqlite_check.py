"""Check whether a SQLite file is damaged, and move a damaged one out of the way without deleting it.

Needs no MLflow and no Optuna, whose files it checks.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import HarnessError

_BESIDE = ("", "-wal", "-shm", "-journal")


def find_fault(path: Path) -> str | None:
    """Return what is wrong with the file, in a few words; None if it is sound and writable. Reads every page.

    Raises:
        HarnessError: the file cannot be opened now, so whether it is damaged is not known.
    """
    if path.stat().st_size == 0:
        return "it is empty"
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=30)) as connection:
            said = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(3)")]
            if said == ["ok"]:
                [(version,)] = connection.execute("PRAGMA user_version")
                connection.execute("BEGIN IMMEDIATE")
                # Writes nothing, but fails if one wrong byte of the header makes the whole file read-only.
                connection.execute(f"PRAGMA user_version = {int(version)}")
                connection.rollback()
    except sqlite3.Error as error:
        if is_busy(error) or not os.access(path, os.R_OK | os.W_OK):
            raise HarnessError(f"{path.name} cannot be opened now ({error})") from None
        return str(error)
    return None if said == ["ok"] else " ".join("; ".join(said).split())[:200]


def is_busy(error: BaseException) -> bool:
    """Whether an error, also inside other errors, says that another process is writing to the database."""
    return "database is locked" in str(error)


def set_aside(path: Path) -> Path:
    """Rename a database and its journals, so that a new one can be made, and return its new path.

    No process may have the database open.
    """
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    aside = path.with_name(f"{path.name}.damaged-{now}")
    for suffix in _BESIDE:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside
