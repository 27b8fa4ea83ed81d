"""One real study that ran to its end, built once for all processes of a test run, and copies of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from damaging import remove_journal
from filelock import FileLock
from small_study import World, draw_images

from harness.tracking.address import default_address
from harness.tracking.mlflow_store import close_store
from harness.tracking.moved_home import follow_home

# All that a study can leave behind; what is not here are the defaults of `World.write`.
ASKED: dict[str, Any] = {"shifts": ["blur"], "data_sizes": [0.5]}


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """A folder of this run of the tests, the same for each process that takes part in it."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def once(folder: Path, build: Callable[[Path], object]) -> Path:
    """Let the first process that comes fill the folder, and the others wait for it; nobody may change it then."""
    done = folder.with_name(f"{folder.name}.done")
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a process that failed half-way
            folder.mkdir()
            build(folder)
            done.touch()
    return folder


def live_below(patch: pytest.MonkeyPatch, root: Path) -> None:
    """Home and reports lie below this folder."""
    patch.setenv("HARNESS_HOME", str(root / "home"))
    patch.setenv("HARNESS_REPORTS", str(root / "reports"))
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)


def finished_study(factory: pytest.TempPathFactory) -> Path:
    """The root of the study's world. Look at a copy of it: see `copy_of`."""
    return once(shared_folder(factory) / "finished-study", _run)


def _run(root: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        live_below(patch, root)
        made = World(root, draw_images(root / "cells"))
        made.write(**ASKED)
        made.run()
        close_store(default_address())
    remove_journal(root / "home" / "mlflow.db")


def copy_of(finished: Path, root: Path) -> World:
    """Copy the study's home, report, file and images below `root`; MLflow's addresses lead into the copy."""
    for part in ("home", "reports", "studies", "cells"):
        shutil.copytree(finished / part, root / part, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        live_below(patch, root)
        follow_home(default_address())
    remove_journal(root / "home" / "mlflow.db")
    copied = World(root, root / "cells")
    copied.write(**ASKED)
    return copied
