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


@pytest.mark.parametrize("name", ["with space", "100%", "a?b#c", "%20"])
def test_any_folder_name_survives_the_address(name: str, tmp_path: Path) -> None:
    path = tmp_path / name / "mlflow.db"
    assert store.sqlite_path(store.sqlite_address(path)) == path


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
