"""Small worlds: every test has a home and a reports folder of its own, one thread, and no network."""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib
import pytest
import torch

matplotlib.use("Agg")
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


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real images and weights that lie beside some checkouts; tests that use them are skipped elsewhere."""
    path = Path(os.environ.get("HARNESS_SHARED", ROOT.parent / "shared"))
    if not (path / "data" / "rbc12" / "images").is_dir():
        pytest.skip("the real images (Chula RBC-12) are not beside this checkout")
    return path
