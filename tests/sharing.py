"""Which activations are kept for which configurations, and whether two trials came to the same bits."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from harness.config.trial import TrialConfig
from harness.results.records import TrialRecord
from harness.training.frozen_features.worker_cache import CachedFeatures, Plan, cache_key

ALL_CUTS = (1, 2, 3, 4, 5)


def plan_for(folder: Path, *configs: TrialConfig, cuts: tuple[int, ...] = ALL_CUTS, split: str = "search") -> Plan:
    kept = {cache_key(config, split, random_weights=True) for config in configs}
    return Plan(folder, tuple(CachedFeatures(*facts, cuts=cuts) for facts in sorted(kept, key=str)))


def numbers_of(record: TrialRecord) -> list[Any]:
    """Everything of the epochs but the times."""
    return [dataclasses.replace(epoch, seconds=0.0) for epoch in record.epochs]


def assert_equal(one: tuple[TrialRecord, dict[str, Any]], other: tuple[TrialRecord, dict[str, Any]]) -> None:
    assert numbers_of(one[0]) == numbers_of(other[0])
    assert set(one[1]) == set(other[1])
    for name, tensor in one[1].items():
        assert torch.equal(tensor, other[1][name]), name
