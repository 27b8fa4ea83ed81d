"""A small world for training: 60 drawn images in three colours, random weights, 32 px."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.config.trial import TrialConfig
from harness.results.records import TrialJob
from harness.training.inputs import TrialData


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
