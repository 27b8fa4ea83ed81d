"""Small studies, and what a worker is told of one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from study_fixtures import at_home, canned, canned_world, copied, finished, whole, world  # noqa: F401 - fixtures

from harness.config.fit import Fit
from harness.config.initial_weights import WeightsChoice
from harness.study.executors.base import WorkerContext
from harness.training.frozen_features.worker_cache import Plan


@pytest.fixture
def context(tmp_path: Path) -> WorkerContext:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", rng.integers(0, 255, (40, 32, 32, 3)).astype(np.uint8))
    rows = np.arange(40)
    return WorkerContext(
        images={Fit(32): tmp_path / "images.npy"},
        image_size=32,
        labels=(rows % 2).astype(np.int64),
        keys=rows.astype(np.uint64),
        splits={"search": (rows[:24], rows[24:32])},
        classes=("dark", "light"),
        objective="accuracy",
        weights=WeightsChoice.read("none"),
        threads=1,
        checkpoints=tmp_path / "checkpoints",
        plan=Plan(),
    )
