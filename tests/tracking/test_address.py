"""Which address counts, and that no password is shown."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from harness.tracking import address as store


def test_without_any_setting_the_store_is_a_file_in_the_state_folder(state: Path) -> None:
    assert store.sqlite_path(store.tracking_address(None)) == state.resolve() / "mlflow.db"


def test_the_study_beats_the_default_and_the_environment_beats_the_study(monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.tracking_address("http://study:5000") == "http://study:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment:5000")
    assert store.tracking_address("http://study:5000") == "http://environment:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert store.tracking_address("http://study:5000") == "http://study:5000"


@pytest.mark.parametrize("address", ["mlruns", "file:///tmp/mlruns"])
def test_a_folder_of_files_is_refused_with_the_way_out(address: str) -> None:
    with pytest.raises(store.TrackingError, match=r"sqlite:///"):
        store.tracking_address(address)


@pytest.mark.parametrize(
    "name", ["two words", "100%", "%41", "%2541", "a?b", "a#b", 'it\'s "here"', "über 細胞", "a@b:c"]
)
def test_a_folder_of_any_name_is_opened_and_no_other_is_made(name: str, tmp_path: Path) -> None:
    """By MLflow, by Optuna and by ourselves; MLflow would make a folder of the name as it is written in the address."""
    from mlflow.store.db.utils import create_sqlalchemy_engine_with_retry
    from sqlalchemy import create_engine

    path = tmp_path / name / "mlflow.db"
    address = store.sqlite_address(path)
    assert store.sqlite_path(address) == path
    path.parent.mkdir()
    for engine in (create_sqlalchemy_engine_with_retry(address), create_engine(address)):
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS here (number INTEGER)")
        engine.dispose()
    assert [found.relative_to(tmp_path) for found in tmp_path.rglob("*.db")] == [path.relative_to(tmp_path)]
    assert [found.name for found in tmp_path.iterdir()] == [name]
    assert store.tracking_address(address) == address and store.masked(address) == address


@pytest.mark.parametrize("name", ["two words", "%41", "a?b", "a#b", "über 細胞"])
def test_an_address_of_artifacts_and_a_path_lead_to_the_same_folder(name: str, tmp_path: Path) -> None:
    assert store.local_path((tmp_path / name).as_uri()) == tmp_path / name
    assert store.local_path(str(tmp_path / name).replace("%", "%25")) == tmp_path / name  # as MLflow decodes a path
    assert store.local_path("s3://bucket/cells") is None


@pytest.mark.parametrize(
    ("address", "secret"),
    [
        ("postgresql://me:p4ss@host/db", "p4ss"),
        ("http://me:p4:ss@host:5000", "p4"),
        ("http://host/x?user=me&password=p4ss", "p4ss"),
        ("http://host/x?api_key=p4ss&a=b", "p4ss"),
        ("see postgresql://me:p4ss@host/db and http://you:other@host", "other"),
        ("postgresql://me:p@ss@host/db", "ss@"),
    ],
)
def test_passwords_are_masked(address: str, secret: str) -> None:
    shown = store.masked(address)
    assert secret not in shown
    assert "***" in shown and "host" in shown


def test_an_address_without_a_password_is_shown_whole() -> None:
    for address in ("http://host:5000/path", "sqlite:////home/me@work/a:b/mlflow.db"):
        assert store.masked(address) == address


def test_a_closed_port_is_noticed_at_once(free_port: int) -> None:
    began = time.monotonic()
    assert not store.answers(f"http://127.0.0.1:{free_port}")
    assert time.monotonic() - began < 1


def test_telemetry_stays_on_where_the_user_turned_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)
    store.prepare_environment()
    import os

    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "false"
    assert "DO_NOT_TRACK" not in os.environ


def test_telemetry_is_off_and_retries_are_short_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.delenv(name, raising=False)
    store.prepare_environment()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == os.environ["DO_NOT_TRACK"] == "true"
    assert int(os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]) <= 2
