"""Small worlds: every test has a home and a reports folder of its own, one thread, and no network."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib
import pytest
import torch
from hypothesis import settings

matplotlib.use("Agg")
settings.register_profile("harness", deadline=None)  # a busy machine is no error of the code under test
settings.load_profile("harness")
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's studies."""
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HARNESS_REPORTS", str(tmp_path / "reports"))
    for name in list(os.environ):
        if name.startswith("HARNESS_") and name not in ("HARNESS_HOME", "HARNESS_REPORTS", "HARNESS_SHARED"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    torch.set_num_threads(1)


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command in this process, which has loaded torch already: its exit code and what it said on both channels."""
    from harness.cli import main

    monkeypatch.chdir(ROOT)
    # It would be a second process that imports torch.
    monkeypatch.setattr("harness.study.executors.forkserver.warm_up", lambda: None)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # the command sets it; this sets it back

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["harness", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database as `prepare_store` makes it, made once: that takes seconds."""
    from harness.tracking.address import default_address
    from harness.tracking.mlflow_store import prepare_store

    folder = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_HOME", str(folder))
        prepare_store(default_address())
    return folder / "mlflow.db"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real images and weights that lie beside some checkouts; tests that use them are skipped elsewhere."""
    path = Path(os.environ.get("HARNESS_SHARED", ROOT.parent / "shared"))
    if not (path / "data" / "rbc12" / "images").is_dir():
        pytest.skip("the real images (Chula RBC-12) are not beside this checkout")
    return path
