"""Shared activations change no bit: every trial that may share is compared with one that does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sharing import assert_equal, plan_for

from harness.config.trial import TrialConfig
from harness.results.records import TrialRecord
from harness.training.frozen_features.features import FrozenFeatures
from harness.training.frozen_features.worker_cache import WorkerCache
from harness.training.trial_data import TrialData

CPU = torch.device("cpu")
Run = Callable[..., tuple[TrialRecord, dict[str, torch.Tensor]]]


@pytest.fixture
def config(config: TrialConfig) -> TrialConfig:
    return dataclasses.replace(config, strategy="fine_tuning", batchnorm="fixed_stats", epochs=3)


@pytest.fixture
def data(data: TrialData) -> TrialData:
    return dataclasses.replace(data, source="sixty")


@pytest.fixture
def few(data: TrialData) -> TrialData:
    """Two steps an epoch, from which other images are left out each time, and a batch and a half to score."""
    return dataclasses.replace(data, train=data.train[:19], validation=data.validation[:12])


RECIPES = ("none", "flips", "microscopy", "natural")
POLICIES = ("frozen", "updated_stats", "recalibrated")
ADAPTING: dict[str, dict[str, Any]] = {
    "head": {"unfreeze_depth": 0, "backbone_lr": None},
    "two stages": {"unfreeze_depth": 2},
    "head first": {"unfreeze_depth": 2, "unfreeze_schedule": "head_first"},
    "progressive": {"unfreeze_depth": 2, "unfreeze_schedule": "progressive"},
    "from the stem": {"unfreeze_depth": 1, "unfreeze_from": "stem", "unfreeze_schedule": "head_first"},
}


def each_pair_in_every_run() -> Iterator[Any]:
    """Each recipe with each policy, each with each way of adapting; all three with one another in the slow run."""
    for i, recipe in enumerate(RECIPES):
        for j, policy in enumerate(POLICIES):
            for k, (name, adapting) in enumerate(ADAPTING.items()):
                often = (i + k) % len(POLICIES) == j
                marks = [] if often else [pytest.mark.slow]
                yield pytest.param(recipe, policy, adapting, id=f"{recipe}, {policy}, {name}", marks=marks)


@pytest.mark.parametrize(("augmentation", "batchnorm", "adapting"), [*each_pair_in_every_run()])
def test_sharing_changes_no_bit(
    run: Run,
    config: TrialConfig,
    few: TrialData,
    tmp_path: Path,
    augmentation: Any,
    batchnorm: Any,
    adapting: dict[str, Any],
) -> None:
    config = dataclasses.replace(config, augmentation=augmentation, batchnorm=batchnorm, **adapting)
    alone = run(config, data=few)
    sharing = WorkerCache(plan_for(tmp_path / "prefix", config))
    assert_equal(run(config, sharing, data=few), alone)
    again = run(config, sharing, data=few)  # everything is at hand now
    assert_equal(again, alone)
    assert alone[0].cache_reason is not None
    assert again[0].cache_reason == ("the stem trains" if config.unfreeze_from == "stem" else None)


def test_parameters_of_the_last_part_share_exactly(
    run: Run, config: TrialConfig, data: TrialData, tmp_path: Path
) -> None:
    """Averaging, dropout, clipping, class weights, repeated images, SGD: none of them touches the frozen part."""
    config = dataclasses.replace(
        config,
        ema=0.9,
        head="mlp",
        head_dropout=0.3,
        gradient_clip=0.5,
        imbalance="balanced_sampling",
        optimizer="sgd",
        weight_decay=0.1,
    )
    # Two images of one class, so that each comes several times in an epoch, and each time as another view.
    few = dataclasses.replace(data, train=np.concatenate([data.train[data.labels[data.train] != 0], [0, 3]]))
    shared = run(config, WorkerCache(plan_for(tmp_path / "prefix", config)), data=few)
    assert shared[0].cache_reason is None
    assert_equal(shared, run(config, data=few))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"unfreeze_depth": 5}, "the stem trains"),
        ({"unfreeze_from": "stem"}, "the stem trains"),
        ({"batchnorm": "train_mode"}, "train_mode normalises frozen stages by the batch's statistics"),
        ({"mixup": 0.2}, "mixup and CutMix mix images"),
        ({"cutmix": 1.0}, "mixup and CutMix mix images"),
        ({"imbalance": "balanced_sampling", "augmentation": "natural"}, "balanced_sampling repeats images"),
    ],
)
def test_a_trial_that_cannot_share_says_why(
    run: Run, config: TrialConfig, tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    config = dataclasses.replace(config, **change)
    record, _ = run(config, WorkerCache(plan_for(tmp_path / "prefix", config)))
    assert reason in (record.cache_reason or "")
    assert not list((tmp_path / "prefix").glob("*/*.rows"))


def test_a_backbone_that_depends_on_the_rest_of_the_batch_is_not_shared(
    run: Run, config: TrialConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = FrozenFeatures._taps

    def mixed_up(self: FrozenFeatures, x: torch.Tensor, **options: Any) -> Any:
        return {cut: tap + x[0].mean() for cut, tap in real(self, x, **options).items()}

    monkeypatch.setattr(FrozenFeatures, "_taps", mixed_up)
    shared = run(config, WorkerCache(plan_for(tmp_path / "prefix", config)))
    assert "depend on the other images of the batch" in (shared[0].cache_reason or "")
    assert_equal(shared, run(config))


def test_rows_and_numbers_reach_the_model_in_the_trial_s_own_order(data: TrialData) -> None:
    """The family's numbers are those of the views that an unshared trial draws."""
    from harness.data import augmentation as views
    from harness.training.frozen_features.features import ViewFamily

    rows = data.train[:16]
    for recipe in ("none", "flips", "microscopy", "natural"):
        family = ViewFamily(recipe, 7)  # type: ignore[arg-type]
        numbers = family.numbers(3, data.keys[rows], np.zeros_like(rows))
        images = data.batch(rows, CPU)
        drawn = views.draw(recipe, 7, 3, data.keys[rows])  # type: ignore[arg-type]
        wanted = views.apply(recipe, images, drawn)  # type: ignore[arg-type]
        assert torch.equal(family.render(images, data.keys[rows], numbers), wanted)
