"""MLflow's own store: its client, its database file, and whole experiments."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

from filelock import FileLock

from harness.config.secrets import masked
from harness.results.home import home
from harness.tracking.store import (
    TrackingUnavailable,
    answers,
    is_remote,
    prepare_environment,
    sqlite_address,
    sqlite_path,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

Held = tuple[str, int, float]  # name, step and value of a metric's point


def import_mlflow() -> None:
    """Import MLflow (about 1.2 s) when it is needed, with our settings and without its dependencies' deprecations."""
    prepare_environment()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import mlflow
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


def open_client(address: str) -> MlflowClient:
    """A client of that address alone; the process-wide tracking address is left as it is."""
    import_mlflow()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=address, registry_uri=address)


def prepare_store(address: str) -> None:
    """Make the file of a SQLite address, if it is missing: under a lock, in a temporary file, then renamed.

    Processes that race to create the tables in the file itself leave it broken for good.
    """
    path = sqlite_path(address)
    if path is None or path.exists():
        return
    import_mlflow()
    locks = home() / "locks"
    locks.mkdir(exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / "mlflow.lock"):
        if path.exists():
            return
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
        temporary.unlink(missing_ok=True)
        store = SqlAlchemyStore(  # type: ignore[no-untyped-call]
            sqlite_address(temporary), (home() / "artifacts").as_uri()
        )
        store.engine.dispose()
        connection = sqlite3.connect(temporary)
        connection.execute("PRAGMA journal_mode=WAL")  # kept in the file: readers no longer hold up the writer
        connection.close()
        temporary.replace(path)


def close_store(address: str) -> None:
    """Close what MLflow keeps open of a database, so that its file can be replaced under this process."""
    import_mlflow()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    engines = getattr(SqlAlchemyStore, "_engine_map", {})  # MLflow has no public way to it
    if address in engines:
        engines[address].dispose()


def metric_points(address: str, client: MlflowClient, run_id: str, names: Iterable[str]) -> list[Held]:
    """Every point that a run holds of these metrics, repeated ones too.

    A database of this machine is read directly: one query a run, where the client needs one for each metric.
    """
    path = sqlite_path(address)
    if path is not None:
        query = "SELECT key, step, value FROM metrics WHERE run_uuid = ?"
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=30)) as connection:
            return [(str(key), int(step), float(value)) for key, step, value in connection.execute(query, (run_id,))]
    return [(name, old.step, old.value) for name in names for old in client.get_metric_history(run_id, name)]


def restore_experiment(address: str, study: str) -> bool:
    """Bring back the deleted experiment of a study; False where there is none to bring back."""
    client = open_client(address)
    experiment = client.get_experiment_by_name(study)
    if experiment is None or experiment.lifecycle_stage != "deleted":
        return False
    client.restore_experiment(experiment.experiment_id)
    return True


def delete_experiment(study: str, address: str) -> None:
    """Take a study's runs out of the UI and free its name; nothing happens where MLflow does not know it.

    MLflow deletes softly and keeps the name taken, so the experiment is renamed before.

    Raises:
        TrackingUnavailable: MLflow does not answer.
    """
    path = sqlite_path(address)
    if path is not None and not path.exists():
        return
    client = open_client(address)
    try:
        if is_remote(address) and not answers(address):
            raise ConnectionError("nothing listens there")
        experiment = client.get_experiment_by_name(study)
        if experiment is None or experiment.lifecycle_stage == "deleted":
            return
        client.rename_experiment(experiment.experiment_id, f"{study} (removed, {experiment.experiment_id})")
        client.delete_experiment(experiment.experiment_id)
    except failures() as error:
        raise TrackingUnavailable(f"MLflow at {masked(address)} does not answer ({reason(error)}).") from None


def failures() -> tuple[type[Exception], ...]:
    """What MLflow raises when it cannot be reached; an HTTP client's errors are OSErrors."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, OSError


def reason(error: Exception) -> str:
    """What went wrong, in a line, without a password."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return masked(lines[0])[:300]
