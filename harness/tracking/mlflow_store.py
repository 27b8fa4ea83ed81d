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
    from mlflow.entities import Experiment, LoggedModel, Run


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
            # beside the database, so that it names its home, also if a study of another home comes first
            sqlite_address(temporary),
            (path.parent.resolve() / "artifacts").as_uri(),
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


REPLACED = "harness.replaced"  # tag of a run that no longer counts as the study's; says what took its place


def all_runs(client: MlflowClient, experiments: list[str], condition: str = "") -> list[Run]:
    """Return all runs that meet the condition, also deleted ones, but without those that were replaced."""
    return [run for run in _search(client, experiments, condition) if REPLACED not in run.data.tags]


def _search(client: MlflowClient, experiments: list[str], condition: str = "") -> list[Run]:
    from mlflow.entities import ViewType

    runs: list[Run] = []
    token: str | None = None
    while experiments and token != "":
        page = client.search_runs(experiments, condition, ViewType.ALL, max_results=1000, page_token=token)
        runs += page
        token = page.token or ""
    return runs


def parent_runs(client: MlflowClient, study: str, identity: str) -> list[Run]:
    """Return the parent runs with this study's id; more than one if the request that creates it was repeated.

    The experiment of the study's name is searched first, and then all others, because a user may have renamed it.

    Args:
        identity: the study's id, see `mapping.study_id`.
    """
    condition = f"tags.`harness.study_id` = '{identity}'"
    named = client.get_experiment_by_name(study)
    if named is not None and named.lifecycle_stage != "deleted":
        found = all_runs(client, [named.experiment_id], condition)
        if found:
            return found
    return all_runs(client, [experiment.experiment_id for experiment in _experiments(client)], condition)


def _experiments(client: MlflowClient) -> list[Experiment]:
    """Return all experiments that are not deleted."""
    found: list[Experiment] = []
    token: str | None = None
    while token != "":
        page = client.search_experiments(max_results=1000, page_token=token)
        found += page
        token = page.token or ""
    return found


def replace_run(client: MlflowClient, run: Run, note: str) -> None:
    """End and delete a run and its child runs, marked so that they are never taken for the study's again."""
    child = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    for each in (run, *all_runs(client, [run.info.experiment_id], child)):
        client.set_tag(each.info.run_id, REPLACED, note)
        _delete_run(client, each)


def _delete_run(client: MlflowClient, run: Run) -> None:
    if run.info.lifecycle_stage == "deleted":
        return
    if run.info.status == "RUNNING":
        client.set_terminated(run.info.run_id, "KILLED")
    client.delete_run(run.info.run_id)


def study_runs(address: str, study: str, identity: str) -> StudyRuns | None:
    """Return the runs of a study; None if MLflow does not hold the study.

    Args:
        identity: the study's id, see `mapping.study_id`.

    Raises:
        TrackingUnavailable: MLflow does not answer.
    """
    with connected_client(address) as client:
        found = [run for run in parent_runs(client, study, identity) if run.info.lifecycle_stage != "deleted"]
        if not found:
            named = client.get_experiment_by_name(study)
            deleted = named is not None and named.lifecycle_stage == "deleted"
            return StudyRuns(True, 2**62, (), ()) if deleted else None
        parent = max(found, key=lambda run: len(run.data.tags))
        child = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
        children = [
            run for run in all_runs(client, [parent.info.experiment_id], child) if run.info.lifecycle_stage != "deleted"
        ]
    noted = parent.data.tags.get("harness.position", "").partition(" ")[0]
    return StudyRuns(
        False,
        int(noted) if noted.isdigit() else 0,
        tuple(run.data.tags.get("harness.key", "") for run in children),
        tuple(run.info.run_name or "" for run in (*found, *children) if run.info.status == "RUNNING"),
    )


def set_study_aside(address: str, study: str, identity: str, when: str) -> str:
    """Make room for a study that is sent again, and return where its old runs are, as a part of a sentence.

    Its runs are deleted and marked. If its experiment holds nothing else, it is renamed and deleted too: MLflow keeps
    deleted experiments and their names.

    Raises:
        TrackingUnavailable: MLflow does not answer.
    """
    with connected_client(address) as client:
        named = client.get_experiment_by_name(study)
        if named is not None and named.lifecycle_stage == "deleted":
            name = f"{study} (set aside {when})"
            _rename_and_delete(client, named, name)
            return f"in the deleted experiment {name!r}"
        for experiment, own, alone in _holding(client, identity):
            for run in own:
                if "harness.study_id" in run.data.tags:
                    client.set_tag(run.info.run_id, REPLACED, f"set aside {when}")
            if alone:
                name = f"{experiment.name} (set aside {when})"
                _rename_and_delete(client, experiment, name)
                return f"in the deleted experiment {name!r}"
            for run in own:
                _delete_run(client, run)
            return f"among the deleted runs of the experiment {experiment.name!r}"
    return "not in MLflow"


def delete_study(address: str, identity: str) -> None:
    """Delete a study's runs and models, and its experiment if it holds nothing else; other studies keep theirs.

    MLflow keeps deleted experiments and their names, so the experiment is renamed first.

    Args:
        identity: the study's id, see `mapping.study_id`.

    Raises:
        TrackingUnavailable: MLflow does not answer.
    """
    path = sqlite_path(address)
    if path is not None and not path.exists():
        return
    with connected_client(address) as client:
        for experiment, own, alone in _holding(client, identity):
            if alone:
                _rename_and_delete(client, experiment, f"{experiment.name} (removed, {experiment.experiment_id})")
                continue
            ids = {run.info.run_id for run in own}
            for model in _models(client, experiment.experiment_id):
                if model.source_run_id in ids:
                    client.delete_logged_model(model.model_id)
            for run in own:
                _delete_run(client, run)


def _holding(client: MlflowClient, identity: str) -> list[tuple[Experiment, list[Run], bool]]:
    """Return each experiment with runs of this study, these runs, and whether it holds nothing else."""
    result = []
    experiments = {experiment.experiment_id: experiment for experiment in _experiments(client)}
    parents = _search(client, list(experiments), f"tags.`harness.study_id` = '{identity}'")
    for number in dict.fromkeys(run.info.experiment_id for run in parents):
        ids = {run.info.run_id for run in parents}
        runs = _search(client, [number])
        own = [run for run in runs if run.info.run_id in ids or run.data.tags.get("mlflow.parentRunId") in ids]
        ids |= {run.info.run_id for run in own}
        others = [run for run in runs if run.info.run_id not in ids and run.info.lifecycle_stage != "deleted"]
        alone = not others and all(model.source_run_id in ids for model in _models(client, number))
        result.append((experiments[number], own, alone))
    return result


def _models(client: MlflowClient, experiment: str) -> list[LoggedModel]:
    found: list[LoggedModel] = []
    token: str | None = None
    while token != "":
        page = client.search_logged_models([experiment], page_token=token)
        found += page
        token = page.token or ""
    return found


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
