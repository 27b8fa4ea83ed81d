"""What shared activations are kept for, who computes them, who pays, and what happens if they are harmed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sharing import assert_equal, plan_for

from harness.config.trial import TrialConfig
from harness.results.records import TrialRecord
from harness.training.frozen_features.store import Activations
from harness.training.frozen_features.worker_cache import WorkerCache
from harness.training.trial import TrialJob, run_trial
from harness.training.trial_data import TrialData

CPU = torch.device("cpu")
Run = Callable[..., tuple[TrialRecord, dict[str, torch.Tensor]]]


@pytest.fixture
def config(config: TrialConfig) -> TrialConfig:
    return dataclasses.replace(config, strategy="fine_tuning", batchnorm="fixed_stats", epochs=3)


@pytest.fixture
def data(data: TrialData) -> TrialData:
    return dataclasses.replace(data, source="sixty")


def test_a_cut_that_is_not_kept_is_read_from_an_earlier_one(run: Run, config: TrialConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(config, unfreeze_depth=1)
    shared = run(config, WorkerCache(plan_for(tmp_path / "prefix", config, cuts=(2, 3))))
    assert "reads the activations after stage2 instead of stage3" in (shared[0].cache_reason or "")
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
    run(config, WorkerCache(plan))
    assert sorted(seen) == [(0, row) for row in range(60)]
    deeper = dataclasses.replace(config, unfreeze_depth=3, head_lr=1e-3)
    run(deeper, WorkerCache(plan))  # another worker, another depth
    other_rows = dataclasses.replace(data, train=data.train[::-1][:30].copy(), validation=data.train[:10])
    run(config, WorkerCache(plan), data=other_rows)  # another split
    assert len(seen) == 60


@pytest.mark.parametrize("kind", ["rows", "crc"])
def test_a_changed_byte_is_noticed_and_the_row_computed_again(
    run: Run, config: TrialConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    config = dataclasses.replace(config, augmentation="none")
    plan = plan_for(tmp_path / "prefix", config, cuts=(3,))
    first = run(config, WorkerCache(plan))
    (file,) = (tmp_path / "prefix").glob(f"*/cut3-view0.{kind}")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    seen = computed(monkeypatch)
    assert_equal(run(config, WorkerCache(plan)), first)
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
    run(dataclasses.replace(config, unfreeze_depth=0), WorkerCache(plan))
    run(dataclasses.replace(other, unfreeze_depth=0), WorkerCache(plan))
    assert len(list((tmp_path / "prefix").iterdir())) == 2


def test_other_images_other_weights_and_another_number_of_threads_are_other_entries(
    run: Run, config: TrialConfig, data: TrialData, tmp_path: Path
) -> None:
    config = dataclasses.replace(config, unfreeze_depth=1, epochs=1)
    data = dataclasses.replace(data, train=data.train[:8], validation=data.validation[:8])
    plan = plan_for(tmp_path / "prefix", config, cuts=(3,))
    run(config, WorkerCache(plan), data=data)
    run(config, WorkerCache(plan), data=dataclasses.replace(data, source="others"))
    run(config, WorkerCache(plan), data=data, seed=1)  # random weights are drawn from the seed
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        run(config, WorkerCache(plan), data=data)
    finally:
        torch.set_num_threads(threads)
    assert len(list((tmp_path / "prefix").iterdir())) == 4


def test_a_full_disk_ends_the_sharing_and_not_the_trial(
    run: Run, config: TrialConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    def full(*args: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    sharing = WorkerCache(plan_for(tmp_path / "prefix", config))
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
    sharing = WorkerCache(plan)
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
        60 * rate + next(iter(sharing.models._models.values())).seconds, rel=0.2
    )


def test_a_lent_stage_that_was_changed_fails_the_trial_and_harms_no_other(
    run: Run, config: TrialConfig, data: TrialData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.training import loop

    sharing = WorkerCache(plan_for(tmp_path / "prefix", config))
    real = loop.train_epoch

    def harming(model: Any, *args: Any, **options: Any) -> float:
        next(model.stages["stem"].parameters()).data.mul_(1.0001)
        return real(model, *args, **options)

    job = TrialJob("x/1", "search", config.strategy, 1, config, 0, "search")
    with monkeypatch.context() as patched:
        patched.setattr(loop, "train_epoch", harming)
        harmed = run_trial(
            job, data, lambda e: True, objective="accuracy", weights_name="none", device=CPU, worker_cache=sharing
        )
    assert harmed.state == "failed"
    assert "stages.stem" in (harmed.reason or "")
    # The harm came in epoch 1, and epoch 2 shows new views: none may have been computed with the changed stage.
    assert_equal(run(config, sharing), run(config))
