"""Shared activations change no bit in any family of backbones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sharing import assert_equal, plan_for

from harness.config.trial import TrialConfig
from harness.model.batchnorm import has_batchnorm
from harness.model.meta import build_shapes
from harness.results.records import TrialRecord
from harness.training.frozen_features.worker_cache import WorkerCache
from harness.training.trial_data import TrialData

Run = Callable[..., tuple[TrialRecord, dict[str, torch.Tensor]]]


@pytest.fixture
def config(config: TrialConfig) -> TrialConfig:
    return dataclasses.replace(config, strategy="fine_tuning", batchnorm="fixed_stats", epochs=3)


@pytest.fixture
def data(data: TrialData) -> TrialData:
    return dataclasses.replace(data, source="sixty")


@pytest.mark.parametrize(
    ("backbone", "images"),
    [
        *((name, 60) for name in ("squeezenet1_1", "efficientnet_b0", "regnet_y_400mf", "shufflenet_v2_x0_5")),
        *((name, 24) for name in ("densenet121", "swin_t", "vit_b_16")),
        *(pytest.param(name, 60, marks=pytest.mark.slow) for name in ("densenet121", "swin_t", "vit_b_16")),
    ],
)
def test_every_family_shares_exactly(
    run: Run, config: TrialConfig, data: TrialData, tmp_path: Path, backbone: str, images: int
) -> None:
    """The expensive ones with two steps in one epoch; slowly with all images."""
    policy = "updated_stats" if has_batchnorm(build_shapes(backbone, 3)) else "frozen"
    config = dataclasses.replace(config, backbone=backbone, unfreeze_depth=1, batchnorm=policy)  # type: ignore[arg-type]
    config = dataclasses.replace(config, epochs=2 if images == 60 else 1)
    if images < 60:
        data = dataclasses.replace(data, train=data.train[: images * 2 // 3], validation=data.validation[: images // 3])
    sharing = WorkerCache(plan_for(tmp_path / "prefix", config))
    shared = run(config, sharing, data=data)
    assert shared[0].cache_reason is None
    assert_equal(shared, run(config, data=data))
