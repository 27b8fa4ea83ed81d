"""MLflow's store: importing MLflow, its client, its database file, and operations on whole experiments."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from filelock import FileLock

from harness.results.paths import home
from harness.safe_text import masked
from harness.tracking.address import (
    TrackingUnavailable,
    answers,
    is_remote,
    prepare_environment,
    sqlite_address,
    sqlite_path,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run


def import_mlflow() -> None:
    """Import MLflow (about 1.2 s) with our settings, without the deprecation warnings of its dependencies."""
    prepare_environment()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import mlflow
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


def open_client(address: str) -> MlflowClient:
    """Make a client of this address; MLflow's process-wide tracking address is not changed."""
    import_mlflow()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=address, registry_uri=address)


def prepare_store(address: str) -> None:
    """Create the file of a SQLite address if it is missing: under a lock, as a temporary file that is then renamed.

    If several processes created the tables in the file itself at once, the file would be broken.
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
        connection.execute("PRAGMA journal_mode=WAL")  # stored in the file: readers no longer block the writer
        connection.close()
        temporary.replace(path)


def close_store(address: str) -> None:
    """Close MLflow's connections to a database, so that its file can be replaced while this process runs."""
    import_mlflow()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    engines = getattr(SqlAlchemyStore, "_engine_map", {})  # MLflow has no public function for it
    if address in engines:
        engines[address].dispose()


@dataclass(frozen=True)
class StudyRuns:
    """The runs of a study in MLflow."""

    deleted: bool  # whether the whole experiment was deleted
    position: int  # seq of the last event that was sent, by the parent run's tag
    keys: tuple[str, ...]  # of the trials' runs
    running: tuple[str, ...]  # names of the runs that are shown as running, including the parent run


def study_runs(address: str, study: str, identity: str) -> StudyRuns | None:
    """Return the runs of a study; None if MLflow does not hold the study.

    Args:
        identity: the study's id, see `mapping.study_id`.

    Raises:
        TrackingUnavailable: MLflow does not answer.
    """
    with connected_client(address) as client:
        experiment = client.get_experiment_by_name(study)
        if experiment is None:
            return None
        deleted = experiment.lifecycle_stage == "deleted"
        runs: list[Run] = []
        token: str | None = None
        while token != "" and not deleted:
            page = client.search_runs([experiment.experiment_id], max_results=1000, page_token=token)
            runs += page
            token = page.token or ""
    parent = next((run for run in runs if run.data.tags.get("harness.study_id") == identity), None)
    if parent is None:
        return StudyRuns(True, 2**62, (), ()) if deleted else None
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    noted = parent.data.tags.get("harness.position", "").partition(" ")[0]
    return StudyRuns(
        deleted,
        int(noted) if noted.isdigit() else 0,
        tuple(run.data.tags.get("harness.key", "") for run in children),
        tuple(run.info.run_name or "" for run in (parent, *children) if run.info.status == "RUNNING"),
    )


def set_experiment_aside(address: str, study: str, when: str) -> str:
    """Free a study's name in MLflow: rename its experiment, delete it, and return the new name.

    MLflow keeps deleted experiments and their names, so renaming is necessary.

    Raises:
        TrackingUnavailable: MLflow does not answer.
    """
    name = f"{study} (set aside {when})"
    with connected_client(address) as client:
        experiment = client.get_experiment_by_name(study)
        if experiment is not None:
            _rename_and_delete(client, experiment, name)
    return name


def delete_experiment(study: str, address: str) -> None:
    """Remove a study's runs from the UI and free its name; do nothing if MLflow does not hold the study.

    MLflow keeps deleted experiments and their names, so the experiment is renamed first.

    Raises:
        TrackingUnavailable: MLflow does not answer.
    """
    path = sqlite_path(address)
    if path is not None and not path.exists():
        return
    with connected_client(address) as client:
        experiment = client.get_experiment_by_name(study)
        if experiment is not None and experiment.lifecycle_stage != "deleted":
            _rename_and_delete(client, experiment, f"{study} (removed, {experiment.experiment_id})")


def _rename_and_delete(client: MlflowClient, experiment: Experiment, name: str) -> None:
    if experiment.lifecycle_stage == "deleted":  # a deleted experiment cannot be renamed
        client.restore_experiment(experiment.experiment_id)
    client.rename_experiment(experiment.experiment_id, name)
    client.delete_experiment(experiment.experiment_id)


@contextlib.contextmanager
def connected_client(address: str) -> Iterator[MlflowClient]:
    """Yield a client; raise every failure of MLflow inside the block as TrackingUnavailable."""
    client = open_client(address)
    try:
        if is_remote(address) and not answers(address):
            raise ConnectionError("nothing listens there")
        yield client
    except failures() as error:
        raise TrackingUnavailable(f"MLflow at {masked(address)} does not answer ({reason(error)}).") from None


def failures() -> tuple[type[Exception], ...]:
    """Return the exceptions that MLflow raises if it cannot be reached; the HTTP client's errors are OSErrors."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, OSError


def reason(error: Exception) -> str:
    """Return what went wrong in one line, without a password."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return masked(lines[0])[:300]
