"""Let the MLflow database of a home folder that was moved or copied name the folder where its artifacts lie now.

MLflow writes the place of every artifact in full into its database. After a move it would look for models and reports
in the old folder, and write new ones there. Only the database of the current home is changed, and in it only what lies
in the folder of artifacts of the home that it came from. This file does not import MLflow: it needs no more than the
names of the columns.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import unquote

from harness.results.paths import home
from harness.tracking.address import TrackingUnavailable, local_path, sqlite_path

# Table, column, and the rows of the table whose column is an address of artifacts.
_ADDRESSES = (
    ("experiments", "artifact_location", ""),
    ("runs", "artifact_uri", ""),
    ("logged_models", "artifact_location", ""),
    ("model_versions", "source", ""),
    ("model_versions", "storage_location", ""),
    ("trace_tags", "value", "AND key = 'mlflow.artifactLocation'"),
)
_WAIT_SECONDS = 30.0  # for another process that writes to the database


def former_folders(address: str) -> list[Path]:
    """Return the folders of artifacts that the home's database names although the home is elsewhere now.

    Returns:
        [] if the home was not moved, or if this is not the address of the home's own database.

    Raises:
        TrackingUnavailable: the database cannot be read.
    """
    database = _of_home(address)
    if database is None:
        return []
    with _opened(database) as connection:
        return [folder for _, folder in _former(connection)]


def follow_home(address: str) -> list[Path]:
    """Let the home's database name the current home's folder of artifacts, and return the folders it named before.

    All rows are changed in one transaction. Running servers read them when they are next asked.

    Raises:
        TrackingUnavailable: the database cannot be written.
    """
    database = _of_home(address)
    if database is None or not former_folders(address):  # a look alone does not wait for a process that writes
        return []
    now = (home() / "artifacts").as_uri()
    with _opened(database) as connection:
        connection.execute("BEGIN IMMEDIATE")
        former = _former(connection)
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for before, _ in former:
            for table, column, condition in _ADDRESSES:
                if table in tables:
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608 - names of this file
                        f"WHERE substr({column}, 1, ?) = ? {condition}",
                        (now, len(before) + 1, len(before) + 1, f"{before}/"),
                    )
        connection.execute("COMMIT")
    return [folder for _, folder in former]


def _of_home(address: str) -> Path | None:
    """Return the file of the address if it is the current home's own database and no link to another one."""
    path, own = sqlite_path(address), home() / "mlflow.db"
    return own if path is not None and path.exists() and path.resolve() == own else None


def _former(connection: sqlite3.Connection) -> list[tuple[str, Path]]:
    """Return other homes' folders of artifacts that are this home's former ones: as the database names them, and where.

    MLflow's default experiment, number 0, names the folder of the home in which the database was made. Each other
    experiment of the harness lies beside it. One whose folder is in this home and no longer where the database says
    was written after a move that the database did not follow.
    """
    artifacts = home() / "artifacts"
    found = {}
    for number, location in connection.execute("SELECT experiment_id, artifact_location FROM experiments"):
        before, _, name = str(location or "").rpartition("/")
        folder = local_path(before) if before else None
        if folder is None or folder == artifacts or folder.name != artifacts.name:
            continue
        if number == 0 or (not folder.exists() and (artifacts / unquote(name)).exists()):
            found[before] = folder
    return list(found.items())


@contextmanager
def _opened(database: Path) -> Iterator[sqlite3.Connection]:
    """Open the database, and undo what was not committed; raise every failure as TrackingUnavailable."""
    try:
        address = f"{database.as_uri()}?mode=rw"
        with closing(sqlite3.connect(address, uri=True, timeout=_WAIT_SECONDS, isolation_level=None)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise TrackingUnavailable(
            f"MLflow's database {database.name} cannot follow the home to its new place ({error})."
        ) from None
