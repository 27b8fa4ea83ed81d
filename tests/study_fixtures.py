"""One small study for each test that changes it, and one finished study for those that only look."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_study import World, draw_images
from tortured import SMALL, Undisturbed

from harness.benchmarks.fault_injection.sandbox import prepare, run_undisturbed


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path, draw_images(tmp_path / "cells"))
    made.write()
    return made


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One study that ran to its end, for tests that only look."""
    root = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_HOME", str(root / "home"))
        patch.setenv("HARNESS_REPORTS", str(root / "reports"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        made = World(root, draw_images(root / "cells"))
        made.write()
        made.run()
    yield made


@pytest.fixture
def at_home(finished: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The finished study, with its home in place."""
    monkeypatch.setenv("HARNESS_HOME", str(finished.root / "home"))
    monkeypatch.setenv("HARNESS_REPORTS", str(finished.root / "reports"))
    return finished


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The study that tests of faults disturb, run to its end by its command; only to look at."""
    place = prepare(tmp_path_factory.mktemp("whole"), **SMALL)
    return Undisturbed(place, run_undisturbed(place))
