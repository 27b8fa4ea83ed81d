"""A small world for training: 60 drawn images in three colours, random weights, 32 px."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from harness.config.trial import TrialConfig
from harness.results.records import TrialJob, TrialRecord
from harness.training.frozen_features.worker_cache import WorkerCache
from harness.training.trial import run_trial
from harness.training.trial_data import TrialData


@pytest.fixture
def data() -> TrialData:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = rng.integers(0, 120, (60, 32, 32, 3))
    images[np.arange(60), :, :, labels] += 90  # the class is the brightest channel
    rows = np.arange(60)
    keys = np.arange(60, dtype=np.uint64) * np.uint64(7919)
    return TrialData(
        images.astype(np.uint8), labels.astype(np.int64), keys, rows[:43], rows[43:], ("red", "green", "blue")
    )


@pytest.fixture
def config() -> TrialConfig:
    return TrialConfig(
        "fine_tuning", "mobilenet_v3_small", 2, 1e-2, 1e-3, batchnorm="updated_stats", batch_size=8, epochs=2
    )


def job_of(config: TrialConfig, seed: int = 0) -> TrialJob:
    return TrialJob(f"{config.strategy}/0", "search", config.strategy, 0, config, seed, "search")


CPU = torch.device("cpu")


@pytest.fixture
def run(data: TrialData, tmp_path: Path) -> Callable[..., tuple[TrialRecord, dict[str, torch.Tensor]]]:
    """Train a configuration; with `sharing` it may read shared activations."""

    def one(config: TrialConfig, sharing: WorkerCache | None = None, **changes: Any) -> Any:
        values = {"seed": 0, "split": "search", "data": data} | changes
        job = TrialJob("x/0", "search", config.strategy, 0, config, values["seed"], values["split"])
        path = tmp_path / "best.safetensors"
        record = run_trial(
            job,
            values["data"],
            lambda e: True,
            objective="balanced_accuracy",
            weights_name="none",
            device=CPU,
            checkpoint=path,
            worker_cache=sharing,
        )
        assert record.state == "complete", record.reason
        return record, load_file(path)

    return one
