"""Small studies: real ones, ones whose trials are made up, and copies of one that is finished."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import canned_executor
import pytest
from canned_executor import Script
from finished_study import copy_of, finished_study, live_below, once, shared_folder
from mlflow import MlflowClient
from small_study import World, draw_images
from tortured import SMALL, Undisturbed

from harness.benchmarks.fault_injection.sandbox import Sandbox, numbers, prepare, run_undisturbed
from harness.config.executors import EXECUTORS, ExecutorEntry
from harness.report import style
from harness.results.paths import home
from harness.tracking import mlflow_runs
from harness.tracking.address import local_path

EMPTY_FIGURE = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>'


def enter(patch: pytest.MonkeyPatch, script: Script) -> None:
    """Let `executor: canned` stand for one that follows the script, and leave figures of pages empty."""
    patch.setattr(canned_executor, "_script", script)
    patch.setitem(EXECUTORS, "canned", ExecutorEntry("canned_executor", "makes its answers up"))
    patch.setattr(style, "_svg", lambda figure: EMPTY_FIGURE)


def log_hollow_model(model: object, example: object, metadata: object, run_id: str, model_id: str) -> None:
    """As `mlflow_models.export_model`, but only the file by which MLflow knows a model: a real export takes seconds."""
    client = MlflowClient()
    place = local_path(str(client.get_logged_model(model_id).artifact_location))
    assert place is not None
    place.mkdir(parents=True, exist_ok=True)
    (place / "MLmodel").write_text("hollow\n")
    client.finalize_logged_model(model_id, "READY")


@pytest.fixture
def world(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A small real study for a test that changes it. Its figures and its logged model are empty: both take seconds."""
    monkeypatch.setattr(style, "_svg", lambda figure: EMPTY_FIGURE)
    monkeypatch.setattr(mlflow_runs, "export_model", log_hollow_model)
    shutil.copyfile(empty_database, home() / "mlflow.db")
    made = World(tmp_path, draw_images(tmp_path / "cells"))
    made.write()
    return made


@pytest.fixture
def canned(monkeypatch: pytest.MonkeyPatch) -> Script:
    """The table of executors has one that makes its answers up; what it does, to be changed."""
    script = Script()
    enter(monkeypatch, script)
    return script


@pytest.fixture
def canned_world(world: World, canned: Script) -> World:
    """A small study whose trials are made up."""
    made = dataclasses.replace(world, executor="canned")
    made.write()
    return made


@pytest.fixture
def copied(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> World:
    """A finished real study in this test's home, to be changed. Figures that it draws from now on are empty."""
    made = copy_of(finished_study(tmp_path_factory), tmp_path)
    monkeypatch.setattr(style, "_svg", lambda figure: EMPTY_FIGURE)
    return made


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A finished real study, for tests that only look."""
    return copy_of(finished_study(tmp_path_factory), tmp_path_factory.mktemp("finished"))


@pytest.fixture
def at_home(finished: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The finished study, with its home in place."""
    live_below(monkeypatch, finished.root)
    return finished


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The study that tests of faults disturb, run to its end by its command; only to look at."""
    root = once(shared_folder(tmp_path_factory) / "whole", lambda root: run_undisturbed(prepare(root, **SMALL)))
    place = Sandbox(root)
    return Undisturbed(place, numbers(place.events()))
