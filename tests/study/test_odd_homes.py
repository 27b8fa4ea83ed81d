"""A home whose name has a meaning in addresses, and one that is moved afterwards: the whole way of a study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from mlflow.tracking._tracking_service import utils
from small_study import World

from harness.doctor.check import examine
from harness.results.event_types import ModelLogged
from harness.results.paths import home
from harness.tracking.address import default_address, sqlite_address
from harness.tracking.mlflow_models import missing_models
from harness.tracking.mlflow_store import close_store

ODD_NAME = '100% a?b #c %41 it\'s "here" über 細胞'


@pytest.fixture(autouse=True)
def odd_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "homes" / ODD_NAME))


def test_a_study_runs_in_a_home_of_any_name_and_goes_on_where_it_is_moved_to(
    canned_world: World,
    canned: object,
    harness: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    canned.checkpoints = True  # type: ignore[attr-defined]
    monkeypatch.chdir(canned_world.root)  # where the user's file names the storage
    optuna_database = sqlite_address(home() / "optuna.db")
    canned_world.write(trials=1, storage=optuna_database)
    assert not canned_world.run().already_finished
    assert len(optuna.get_all_study_names(optuna_database)) == 2
    check(canned_world, harness)

    close_store(default_address())
    utils._artifact_repos_cache.clear()  # as for a new process: MLflow remembers where a run's artifacts lie
    moved = tmp_path / "homes" / f"moved {ODD_NAME}"
    home().rename(moved)
    monkeypatch.setenv("HARNESS_HOME", str(moved))
    canned_world.write(trials=2, storage=sqlite_address(moved / "optuna.db"))
    canned_world.run()
    check(canned_world, harness)
    assert [path.name for path in (tmp_path / "homes").iterdir()] == [moved.name]


def check(world: World, harness: Callable[..., tuple[int, str, str]]) -> None:
    """Doctor, sync and report find everything, and the models are there."""
    assert missing_models(default_address(), {logged.trial_id: logged.uri for logged in world.of(ModelLogged)}) == []
    found = examine(world.folder(), fix=False)
    assert found.well, list(found.lines())
    code, out, err = harness("sync", "tiny")
    assert (code, err) == (0, "") and "had all" in out
    page = world.folder().report / "index.html"
    page.unlink()
    assert harness("report", "tiny")[0] == 0 and page.exists()
