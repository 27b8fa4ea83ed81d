"""Shared activations change no bit: every trial that may share is compared with one that does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from harness.config.trial import TrialConfig
from harness.model.batchnorm import has_batchnorm
from harness.model.shapes import build_shapes
from harness.results.records import TrialJob, TrialRecord
from harness.training.activations import Activations
from harness.training.inputs import TrialData
from harness.training.prefix import Prefix
from harness.training.sharing import Kept, Plan, Sharing, needs
from harness.training.trial import run_trial

CPU = torch.device("cpu")
ALL_CUTS = (1, 2, 3, 4, 5)
Run = Callable[..., tuple[TrialRecord, dict[str, torch.Tensor]]]


@pytest.fixture
def config(config: TrialConfig) -> TrialConfig:
    return dataclasses.replace(config, strategy="fine_tuning", batchnorm="fixed_stats", epochs=3)


@pytest.fixture
def data(data: TrialData) -> TrialData:
    return dataclasses.replace(data, source="sixty")


@pytest.fixture
def run(data: TrialData, tmp_path: Path) -> Run:
    """Train a configuration; with `sharing` it may read shared activations."""

    def one(config: TrialConfig, sharing: Sharing | None = None, **changes: Any) -> Any:
        values = {"seed": 0, "split": "search", "data": data} | changes
        job = TrialJob("x/0", "search", config.strategy, 0, config, values["seed"], values["split"])
        path = tmp_path / "best.safetensors"
        record = run_trial(
            job, values["data"], lambda e: True, objective="balanced_accuracy", weights_name="none", device=CPU,
            checkpoint=path, sharing=sharing,
        )  # fmt: skip
        assert record.state == "complete", record.reason
        return record, load_file(path)

    return one


def plan_for(folder: Path, *configs: TrialConfig, cuts: tuple[int, ...] = ALL_CUTS, split: str = "search") -> Plan:
    kept = {needs(config, split, random_weights=True) for config in configs}
    return Plan(folder, tuple(Kept(*facts, cuts=cuts) for facts in sorted(kept, key=str)))


def numbers_of(record: TrialRecord) -> list[Any]:
    """Everything of the epochs but the times."""
    return [dataclasses.replace(epoch, seconds=0.0) for epoch in record.epochs]


def assert_equal(one: tuple[TrialRecord, dict[str, Any]], other: tuple[TrialRecord, dict[str, Any]]) -> None:
    assert numbers_of(one[0]) == numbers_of(other[0])
    assert set(one[1]) == set(other[1])
    for name, tensor in one[1].items():
        assert torch.equal(tensor, other[1][name]), name


@pytest.mark.parametrize("augmentation", ["none", "flips", "microscopy", "natural"])
@pytest.mark.parametrize("batchnorm", ["frozen", "updated_stats", "recalibrated"])
@pytest.mark.parametrize(
    "adapting",
    [
        {"unfreeze_depth": 0, "backbone_lr": None},
        {"unfreeze_depth": 2},
        {"unfreeze_depth": 2, "unfreeze_schedule": "head_first"},
        {"unfreeze_depth": 2, "unfreeze_schedule": "progressive"},
        {"unfreeze_depth": 1, "unfreeze_from": "stem", "unfreeze_schedule": "head_first"},
    ],
    ids=["head", "two stages", "head first", "progressive", "from the stem"],
)
def test_sharing_changes_no_bit(
    run: Run, config: TrialConfig, tmp_path: Path, augmentation: Any, batchnorm: Any, adapting: dict[str, Any]
) -> None:
    config = dataclasses.replace(config, augmentation=augmentation, batchnorm=batchnorm, **adapting)
    alone = run(config)
    sharing = Sharing(plan_for(tmp_path / "prefix", config))
    assert_equal(run(config, sharing), alone)
    again = run(config, sharing)  # everything is at hand now
    assert_equal(again, alone)
    assert alone[0].cache_reason is not None
    assert again[0].cache_reason == ("the stem trains" if config.unfreeze_from == "stem" else None)


@pytest.mark.parametrize(
    "backbone",
    ["squeezenet1_1", "efficientnet_b0", "densenet121", "regnet_y_400mf", "shufflenet_v2_x0_5", "swin_t", "vit_b_16"],
)
def test_every_family_shares_exactly(run: Run, config: TrialConfig, tmp_path: Path, backbone: str) -> None:
    policy = "updated_stats" if has_batchnorm(build_shapes(backbone, 3)) else "frozen"
    config = dataclasses.replace(config, backbone=backbone, unfreeze_depth=1, epochs=2, batchnorm=policy)  # type: ignore[arg-type]
    sharing = Sharing(plan_for(tmp_path / "prefix", config))
    shared = run(config, sharing)
    assert shared[0].cache_reason is None
    assert_equal(shared, run(config))


def test_parameters_of_the_last_part_share_exactly(
    run: Run, config: TrialConfig, data: TrialData, tmp_path: Path
) -> None:
    """Averaging, dropout, clipping, class weights, repeated images, SGD: none of them touches the frozen part."""
    config = dataclasses.replace(
        config, ema=0.9, head="mlp", head_dropout=0.3, gradient_clip=0.5, imbalance="balanced_sampling",
        optimizer="sgd", weight_decay=0.1,
    )  # fmt: skip
    # Two images of one class, so that each comes several times in an epoch, and each time as another view.
    few = dataclasses.replace(data, train=np.concatenate([data.train[data.labels[data.train] != 0], [0, 3]]))
    shared = run(config, Sharing(plan_for(tmp_path / "prefix", config)), data=few)
    assert shared[0].cache_reason is None
    assert_equal(shared, run(config, data=few))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"unfreeze_depth": 5}, "the stem trains"),
        ({"unfreeze_from": "stem"}, "the stem trains"),
        ({"batchnorm": "train_mode"}, "train_mode normalises frozen stages by the batch"),
        ({"mixup": 0.2}, "mixup and CutMix mix images"),
        ({"cutmix": 1.0}, "mixup and CutMix mix images"),
        ({"imbalance": "balanced_sampling", "augmentation": "natural"}, "balanced_sampling repeats images"),
    ],
)
def test_a_trial_that_cannot_share_says_why(
    run: Run, config: TrialConfig, tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    config = dataclasses.replace(config, **change)
    record, _ = run(config, Sharing(plan_for(tmp_path / "prefix", config)))
    assert reason in (record.cache_reason or "")
    assert not list((tmp_path / "prefix").glob("*/*.rows"))


def test_a_cut_that_is_not_kept_is_read_from_an_earlier_one(run: Run, config: TrialConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(config, unfreeze_depth=1)
    shared = run(config, Sharing(plan_for(tmp_path / "prefix", config, cuts=(2, 3))))
    assert "reads from behind stage2, not stage3" in (shared[0].cache_reason or "")
    assert_equal(shared, run(config))


def computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Collects the (view, image) pairs whose frozen work is computed, once for all cuts."""
    seen: list[tuple[int, int]] = []
    real = Activations.write

    def noted(self: Activations, cut: int, views: Any, rows: Any, x: torch.Tensor) -> None:
        if cut == 3:
            seen.extend(zip(views.tolist(), rows.tolist(), strict=True))
        real(self, cut, views, rows, x)

    monkeypatch.setattr(Activations, "write", noted)
    return seen


def test_each_view_is_computed_once_for_all_trials_workers_and_seeds(
    run: Run, config: TrialConfig, data: TrialData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(config, augmentation="none", unfreeze_depth=1)
    plan = plan_for(tmp_path / "prefix", config)
    seen = computed(monkeypatch)
    run(config, Sharing(plan))
    assert sorted(seen) == [(0, row) for row in range(60)]
    deeper = dataclasses.replace(config, unfreeze_depth=3, head_lr=1e-3)
    run(deeper, Sharing(plan))  # another worker, another depth
    other_rows = dataclasses.replace(data, train=data.train[::-1][:30].copy(), validation=data.train[:10])
    run(config, Sharing(plan), data=other_rows)  # another split
    assert len(seen) == 60


@pytest.mark.parametrize("kind", ["rows", "crc"])
def test_a_changed_byte_is_noticed_and_the_row_computed_again(
    run: Run, config: TrialConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    config = dataclasses.replace(config, augmentation="none")
    plan = plan_for(tmp_path / "prefix", config, cuts=(3,))
    first = run(config, Sharing(plan))
    (file,) = (tmp_path / "prefix").glob(f"*/cut3-view0.{kind}")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    seen = computed(monkeypatch)
    assert_equal(run(config, Sharing(plan)), first)
    assert len(seen) == 1


@pytest.mark.parametrize(
    "change",
    [{"batch_size": 16}, {"backbone": "squeezenet1_1"}, {"batchnorm": "recalibrated"}],
    ids=["batch size", "backbone", "statistics"],
)
def test_what_changes_the_values_is_another_entry(
    run: Run, config: TrialConfig, tmp_path: Path, change: dict[str, Any]
) -> None:
    other = dataclasses.replace(config, **change)
    plan = plan_for(tmp_path / "prefix", config, other, cuts=(5,))
    run(dataclasses.replace(config, unfreeze_depth=0), Sharing(plan))
    run(dataclasses.replace(other, unfreeze_depth=0), Sharing(plan))
    assert len(list((tmp_path / "prefix").iterdir())) == 2


def test_other_images_other_weights_and_another_number_of_threads_are_other_entries(
    run: Run, config: TrialConfig, data: TrialData, tmp_path: Path
) -> None:
    plan = plan_for(tmp_path / "prefix", config, cuts=(3,))
    run(config, Sharing(plan))
    run(config, Sharing(plan), data=dataclasses.replace(data, source="others"))
    run(config, Sharing(plan), seed=1)  # random weights are drawn from the seed
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        run(config, Sharing(plan))
    finally:
        torch.set_num_threads(threads)
    assert len(list((tmp_path / "prefix").iterdir())) == 4


def test_a_backbone_that_depends_on_the_rest_of_the_batch_is_not_shared(
    run: Run, config: TrialConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Prefix._taps

    def mixed_up(self: Prefix, x: torch.Tensor, **options: Any) -> Any:
        return {cut: tap + x[0].mean() for cut, tap in real(self, x, **options).items()}

    monkeypatch.setattr(Prefix, "_taps", mixed_up)
    shared = run(config, Sharing(plan_for(tmp_path / "prefix", config)))
    assert "depend on the images beside it" in (shared[0].cache_reason or "")
    assert_equal(shared, run(config))


def test_a_full_disk_ends_the_sharing_and_not_the_trial(
    run: Run, config: TrialConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    def full(*args: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    sharing = Sharing(plan_for(tmp_path / "prefix", config))
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        shared = run(config, sharing)
    assert "No space left" in (shared[0].cache_reason or "")
    assert_equal(shared, run(config))
    assert "kept no longer" in (run(config, sharing)[0].cache_reason or "")


def test_a_trial_is_charged_for_what_it_used_as_if_it_had_been_alone(
    run: Run, config: TrialConfig, tmp_path: Path
) -> None:
    """What others computed costs it as much as what it computed itself."""
    config = dataclasses.replace(config, augmentation="none", unfreeze_depth=1, epochs=2)
    plan = plan_for(tmp_path / "prefix", config)
    sharing = Sharing(plan)
    first, _ = run(config, sharing)
    second, _ = run(config, sharing)
    assert second.seconds_spent is not None
    assert first.seconds_spent is not None
    prefix = next(iter(sharing._open.values()))
    rate = prefix.seconds_an_image(4)
    assert rate > 0
    assert second.seconds_alone > second.seconds_spent
    # 60 distinct images of one view, whatever the number of epochs; the model that it found built counts too
    assert second.seconds_alone - second.seconds_spent == pytest.approx(
        60 * rate + next(iter(sharing.models._made.values())).seconds, rel=0.2
    )


def test_a_lent_stage_that_was_changed_fails_the_trial_and_harms_no_other(
    run: Run, config: TrialConfig, data: TrialData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.training import loop

    sharing = Sharing(plan_for(tmp_path / "prefix", config))
    real = loop.train_epoch

    def harming(model: Any, *args: Any, **options: Any) -> float:
        next(model.stages["stem"].parameters()).data.mul_(1.0001)
        return real(model, *args, **options)

    job = TrialJob("x/1", "search", config.strategy, 1, config, 0, "search")
    with monkeypatch.context() as patched:
        patched.setattr(loop, "train_epoch", harming)
        harmed = run_trial(
            job, data, lambda e: True, objective="accuracy", weights_name="none", device=CPU, sharing=sharing
        )
    assert harmed.state == "failed"
    assert "stages.stem" in (harmed.reason or "")
    # The harm came in epoch 1, and epoch 2 shows new views: none may have been computed with the changed stage.
    assert_equal(run(config, sharing), run(config))


def test_rows_and_numbers_reach_the_model_in_the_trial_s_own_order(data: TrialData) -> None:
    """The family's numbers are those of the views that an unshared trial draws."""
    from harness.data import views
    from harness.training.prefix import ViewFamily

    rows = data.train[:16]
    for recipe in ("none", "flips", "microscopy", "natural"):
        family = ViewFamily(recipe, 7)  # type: ignore[arg-type]
        numbers = family.numbers(3, data.keys[rows], np.zeros_like(rows))
        images = data.batch(rows, CPU)
        drawn = views.draw(recipe, 7, 3, data.keys[rows])  # type: ignore[arg-type]
        wanted = views.apply(recipe, images, drawn)  # type: ignore[arg-type]
        assert torch.equal(family.render(images, data.keys[rows], numbers), wanted)
