"""A home that is moved or copied keeps its models, and nothing is written to the old place again."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from study_fixtures import log_hollow_model

from harness.config.trial import TrialConfig
from harness.errors import ResourceError
from harness.results.paths import StudyFolder
from harness.tracking import mlflow_runs, moved_home, ui
from harness.tracking.address import TrackingUnavailable, default_address, local_path, sqlite_address
from harness.tracking.mlflow_models import missing_models
from harness.tracking.mlflow_runs import MlflowBridge
from harness.tracking.mlflow_store import close_store, open_client
from harness.tracking.moved_home import follow_home, former_folders

ODD_NAME = '100% a?b #c %41 it\'s "here" über 細胞'  # `test_address.py` has each sign by itself
EXAMPLE = np.zeros((2, 3, 8, 8), np.float32)


@pytest.fixture(autouse=True)
def hollow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_runs, "export_model", log_hollow_model)


@pytest.fixture
def sent(
    make_study: Callable[..., Any],
    make_bridge: Callable[..., Any],
    write_data_files: Callable[..., None],
    config_of: Callable[..., TrialConfig],
    database: str,
) -> Any:
    """A finished study in MLflow with a model, and what a user may add: a registered version of it, a trace's tag."""
    study = make_study()
    write_data_files(study.folder)
    study.session()
    study.trial("fine_tuning/1", config_of())
    study.end()
    bridge = make_bridge(study)
    bridge.catch_up(study.events)
    bridge.log_artifacts()
    study.model = bridge.log_model(object(), EXAMPLE, {}, "fine_tuning/1")  # type: ignore[arg-type]
    client = open_client(database)
    client.create_registered_model("cells")
    source = client.get_logged_model(study.model.rpartition("/")[2]).artifact_location
    client.create_model_version("cells", source)
    execute(database, "PRAGMA foreign_keys = OFF")
    trace = f"{experiments(database)['microscopy']}/traces/tr-1/artifacts"
    execute(database, "INSERT INTO trace_tags (key, value, request_id) VALUES ('mlflow.artifactLocation', ?, 1)", trace)
    execute(database, "INSERT INTO trace_tags (key, value, request_id) VALUES ('note', ?, 1)", trace)
    close_store(database)
    return study


def execute(address: str, sql: str, *values: object) -> list[Any]:
    path = moved_home.sqlite_path(address)
    assert path is not None
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(sql, values).fetchall()


def experiments(address: str) -> dict[str, str]:
    return dict(execute(address, "SELECT name, artifact_location FROM experiments"))


def texts(address: str) -> Iterator[tuple[str, str, str]]:
    """Every text of the database, with its table and column."""
    for (table,) in execute(address, "SELECT name FROM sqlite_master WHERE type = 'table'"):
        for _, column, kind, *_ in execute(address, f"PRAGMA table_info({table})"):
            if not kind.startswith(("INT", "BIGINT", "FLOAT", "BOOL")):
                for (value,) in execute(address, f"SELECT {column} FROM {table}"):
                    yield table, column, str(value)


def live_in(monkeypatch: pytest.MonkeyPatch, place: Path) -> str:
    """Make this folder the home, as for a new process, and return the address of its database."""
    from mlflow.tracking._tracking_service import utils

    utils._artifact_repos_cache.clear()  # a process remembers where a run's artifacts lie
    monkeypatch.setenv("HARNESS_HOME", str(place))
    return default_address()


def bridge_of(study: Any, address: str) -> MlflowBridge:
    return MlflowBridge("microscopy", "Which adaptation suits?", address, StudyFolder("microscopy"))


@pytest.mark.parametrize("name", ["elsewhere", ODD_NAME])
def test_a_moved_home_keeps_its_model_and_writes_nothing_to_the_old_place(
    sent: Any, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    place = tmp_path / "new" / name
    place.parent.mkdir()
    state.rename(place)
    address = live_in(monkeypatch, place)
    assert missing_models(address, {"fine_tuning/1": sent.model}) == [sent.model]
    bridge = bridge_of(sent, address)
    assert bridge.catch_up(sent.events) == 0
    assert bridge.holds_model(sent.model)
    assert bridge.log_model(object(), EXAMPLE, {}, "fine_tuning/1") == sent.model  # type: ignore[arg-type]
    bridge.log_artifacts()
    parent = bridge._projector.parent
    assert parent is not None
    assert {file.path for file in open_client(address).list_artifacts(parent.run_id)} == {"data_card.json"}
    assert not state.exists()
    assert [path.name for path in place.parent.iterdir()] == [name]  # none of an address as it is written
    close_store(address)


def test_no_text_of_the_database_leads_to_the_old_place(
    sent: Any, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of models that were registered and of traces; a text that only mentions the place is the user's."""
    before = state.as_uri()
    state.rename(tmp_path / "new")
    address = live_in(monkeypatch, tmp_path / "new")
    held = [(table, column) for table, column, text in texts(address) if before in text]
    assert {table for table, _ in held} == {"experiments", "runs", "logged_models", "model_versions", "trace_tags"}
    assert follow_home(address) == [state / "artifacts"]
    assert [(table, column) for table, column, text in texts(address) if before in text] == [("trace_tags", "value")]
    assert execute(address, "SELECT key FROM trace_tags WHERE value LIKE ?", f"{before}%") == [("note",)]
    after = [(table, column) for table, column, text in texts(address) if (tmp_path / "new").as_uri() in text]
    assert len(after) == len(held) - 1
    assert follow_home(address) == []


def test_a_copied_home_has_its_own_models_and_leaves_the_original_alone(
    sent: Any, state: Path, tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list(texts(database))
    files = sorted(path for path in (state / "artifacts").rglob("*"))
    shutil.copytree(state, tmp_path / "copy")
    address = live_in(monkeypatch, tmp_path / "copy")
    bridge = bridge_of(sent, address)
    bridge.catch_up(sent.events)
    bridge.log_artifacts()
    assert sorted(path for path in (state / "artifacts").rglob("*")) == files
    shutil.rmtree(state / "artifacts")
    assert bridge.holds_model(sent.model)
    shutil.rmtree(tmp_path / "copy" / "artifacts")
    assert not bridge.holds_model(sent.model)
    assert list(texts(database)) == before


def test_what_lies_elsewhere_is_left(sent: Any, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other folders of a user, other homes, servers, and a folder whose name begins like the home's."""
    other = tmp_path / "second home" / "artifacts" / "cells"
    other.mkdir(parents=True)
    for name in ("cells", "of a dead link"):
        (state / "artifacts" / name).mkdir()
    places = {
        "notebook": (tmp_path / "notes" / "mlruns" / "7").as_uri(),
        "cells": other.as_uri(),
        "begins alike": f"{state.as_uri()}/artifacts2/9",
        "of a bucket": "s3://bucket/artifacts/of a dead link",
        "of a server": "mlflow-artifacts:/4",
    }
    for number, (name, place) in enumerate(places.items(), start=100):
        execute(
            default_address(),
            "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, workspace) "
            "VALUES (?, ?, ?, 'active', 'default')",
            number,
            name,
            place,
        )
    state.rename(tmp_path / "new")
    address = live_in(monkeypatch, tmp_path / "new")
    follow_home(address)
    now = experiments(address)
    assert {name: now[name] for name in places} == places
    assert now["microscopy"] == (tmp_path / "new" / "artifacts" / "microscopy").as_uri()


def test_a_database_that_is_not_the_home_s_own_is_left(
    sent: Any, state: Path, tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shared one, which a study names, and one to which the home has only a link."""
    before = experiments(database)
    live_in(monkeypatch, tmp_path / "mine")
    assert follow_home(database) == former_folders(database) == []
    (tmp_path / "mine" / "mlflow.db").symlink_to(state / "mlflow.db")
    assert follow_home(default_address()) == follow_home(database) == []
    assert experiments(database) == before


def test_the_first_study_in_a_shared_database_does_not_make_its_home_the_database_s(
    make_study: Callable[..., Any], state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = sqlite_address(tmp_path / "shared" / "mlflow.db")
    study = make_study()
    MlflowBridge("microscopy", "", shared, study.folder).catch_up(study.events)
    live_in(monkeypatch, tmp_path / "shared")
    assert follow_home(shared) == []
    assert experiments(shared)["microscopy"] == (state / "artifacts" / "microscopy").as_uri()


def test_an_experiment_that_an_earlier_move_left_behind_follows_too(
    sent: Any, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names a third place, which is gone, and its files are here."""
    gone = tmp_path / "between" / "artifacts"
    execute(
        default_address(),
        "UPDATE experiments SET artifact_location = ? WHERE name = 'microscopy'",
        f"{gone.as_uri()}/microscopy",
    )
    assert former_folders(default_address()) == [gone]
    assert follow_home(default_address()) == [gone]
    assert experiments(default_address())["microscopy"] == (state / "artifacts" / "microscopy").as_uri()


def test_a_writer_beside_is_waited_for_and_readers_go_on(
    sent: Any, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A running server has the database open: it hinders nothing, and sees the change when asked."""
    state.rename(tmp_path / "new")
    address = live_in(monkeypatch, tmp_path / "new")
    server = open_client(address)
    wanted = (tmp_path / "new" / "artifacts" / "microscopy").as_uri()
    assert server.get_experiment_by_name("microscopy").artifact_location != wanted
    with closing(sqlite3.connect(tmp_path / "new" / "mlflow.db")) as other:
        other.execute("BEGIN")
        other.execute("SELECT COUNT(*) FROM runs").fetchall()  # a reader in the middle of its work
        assert follow_home(address) == [state / "artifacts"]
        assert server.get_experiment_by_name("microscopy").artifact_location == wanted
        other.rollback()


def test_a_writer_that_does_not_end_is_an_error_and_nothing_is_changed(
    sent: Any, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.rename(tmp_path / "new")
    address = live_in(monkeypatch, tmp_path / "new")
    before = list(texts(address))
    monkeypatch.setattr(moved_home, "_WAIT_SECONDS", 0.1)
    with closing(sqlite3.connect(tmp_path / "new" / "mlflow.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TrackingUnavailable, match="database is locked"):
            bridge_of(sent, address).catch_up(sent.events)
        other.rollback()
    assert list(texts(address)) == before
    assert not state.exists()
    assert bridge_of(sent, address).catch_up(sent.events) == 0
    assert follow_home(address) == []


def test_a_change_that_fails_half_way_changes_nothing(
    sent: Any, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.rename(tmp_path / "new")
    address = live_in(monkeypatch, tmp_path / "new")
    before = list(texts(address))
    monkeypatch.setattr(moved_home, "_ADDRESSES", (*moved_home._ADDRESSES, ("runs", "no_such_column", "")))
    with pytest.raises(TrackingUnavailable, match="no_such_column"):
        follow_home(address)
    assert list(texts(address)) == before


@pytest.mark.parametrize("name", ["elsewhere", ODD_NAME])
def test_the_server_of_harness_ui_gets_the_database_and_the_artifacts_of_the_home_where_it_is(
    sent: Any, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    started: list[dict[str, str]] = []

    @contextmanager
    def start(environment: dict[str, str], *_: Any) -> Iterator[Any]:
        started.append(environment)
        yield SimpleNamespace(poll=lambda: 0, returncode=0)

    place = tmp_path / name
    state.rename(place)
    address = live_in(monkeypatch, place)
    (place / "mlflow-server.log").touch()
    monkeypatch.setattr(ui, "_server", start)
    with pytest.raises(ResourceError, match="ended by itself"):
        ui.serve("microscopy", address=address, port=0)
    [environment] = started
    root = environment["MLFLOW_ARTIFACTS_DESTINATION"]
    store = SqlAlchemyStore(environment["MLFLOW_BACKEND_STORE_URI"], root)
    location = store.get_experiment_by_name("microscopy").artifact_location
    assert local_path(location) == place / "artifacts" / "microscopy" and location.startswith(f"{root}/")
    assert [file.path for file in get_artifact_repository(root).list_artifacts()] == ["microscopy"]
    store.engine.dispose()
