"""MLflow's own store: its client, its database file, and whole experiments."""

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


@dataclass(frozen=True)
class StudyRuns:
    """What MLflow shows of a study."""

    deleted: bool  # the whole experiment was
    position: int  # of the log: events up to here have been sent, as the study's own run notes
    keys: tuple[str, ...]  # of the trials' runs
    running: tuple[str, ...]  # names of runs that are shown as running, the study's own among them


def study_runs(address: str, study: str, identity: str) -> StudyRuns | None:
    """The runs of a study; None where MLflow does not know the study.

    Raises:
        TrackingUnavailable: MLflow does not answer.
    """
    with reached(address) as client:
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
    """Free a study's name in MLflow: its experiment gets another one, and is a deleted one then; the new name.

    MLflow deletes softly and keeps the name of a deleted experiment taken.

    Raises:
        TrackingUnavailable: MLflow does not answer.
    """
    name = f"{study} (set aside {when})"
    with reached(address) as client:
        experiment = client.get_experiment_by_name(study)
        if experiment is not None:
            _renamed_and_deleted(client, experiment, name)
    return name


def delete_experiment(study: str, address: str) -> None:
    """Take a study's runs out of the UI and free its name; nothing happens where MLflow does not know it.

    MLflow deletes softly and keeps the name taken, so the experiment is renamed before.

    Raises:
        TrackingUnavailable: MLflow does not answer.
    """
    path = sqlite_path(address)
    if path is not None and not path.exists():
        return
    with reached(address) as client:
        experiment = client.get_experiment_by_name(study)
        if experiment is not None and experiment.lifecycle_stage != "deleted":
            _renamed_and_deleted(client, experiment, f"{study} (removed, {experiment.experiment_id})")


def _renamed_and_deleted(client: MlflowClient, experiment: Experiment, name: str) -> None:
    if experiment.lifecycle_stage == "deleted":  # only a restored one can be renamed
        client.restore_experiment(experiment.experiment_id)
    client.rename_experiment(experiment.experiment_id, name)
    client.delete_experiment(experiment.experiment_id)


@contextlib.contextmanager
def reached(address: str) -> Iterator[MlflowClient]:
    """A client; what MLflow raises inside becomes one error."""
    client = open_client(address)
    try:
        if is_remote(address) and not answers(address):
            raise ConnectionError("nothing listens there")
        yield client
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
