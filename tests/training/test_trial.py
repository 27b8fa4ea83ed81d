from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from harness.config.trial import TrialConfig
from harness.errors import DivergedError
from harness.results.records import TrialJob, TrialRecord
from harness.training import loop
from harness.training.frozen_features.initial_models import InitialModels
from harness.training.optimizers import lr_factor
from harness.training.out_of_memory import NO_FALLBACK
from harness.training.record_builder import RecordBuilder
from harness.training.trial import restore, run_trial
from harness.training.trial_data import TrialData, epoch_order, padded

CPU = torch.device("cpu")


def job_of(config: TrialConfig, seed: int = 0) -> TrialJob:
    return TrialJob(f"{config.strategy}/0", "search", config.strategy, 0, config, seed, "search")


def run(config: TrialConfig, data: TrialData, seed: int = 0, **options: Any) -> TrialRecord:
    defaults: dict[str, Any] = {"objective": "balanced_accuracy", "weights_name": "none", "device": CPU}
    return run_trial(job_of(config, seed), data, options.pop("on_epoch", lambda e: True), **defaults | options)


def curves(record: TrialRecord) -> list[tuple[float, float]]:
    return [(e.train_loss, e.validation["log_loss"]) for e in record.epochs]


def test_a_trial_ends_complete_with_one_record_an_epoch(data: TrialData, config: TrialConfig) -> None:
    record = run(config, data)
    assert (record.state, record.reason) == ("complete", None)
    assert [e.epoch for e in record.epochs] == [1, 2]
    best = max(record.epochs, key=lambda e: e.validation["balanced_accuracy"])
    assert record.best_epoch == best.epoch
    assert record.score == best.validation["balanced_accuracy"]
    assert 0 < record.trainable_parameters < record.total_parameters
    assert TrialRecord.from_json(record.to_json()) == record


def test_training_learns_what_there_is_to_learn(data: TrialData, config: TrialConfig) -> None:
    config = dataclasses.replace(config, backbone="resnet18", unfreeze_depth=1, epochs=4, batchnorm="fixed_stats")
    assert (run(config, data, weights_name="bundled").score or 0) > 0.9


def test_the_same_job_gives_the_same_bits_and_another_seed_does_not(data: TrialData, config: TrialConfig) -> None:
    first, again, other = run(config, data), run(config, data), run(config, data, seed=1)
    assert curves(first) == curves(again)
    assert curves(first) != curves(other)


def test_what_ran_before_in_the_process_changes_nothing(data: TrialData, config: TrialConfig) -> None:
    first = run(config, data)
    torch.manual_seed(99)
    torch.rand(1000)
    run(dataclasses.replace(config, unfreeze_depth=5), data)
    assert curves(run(config, data)) == curves(first)


def test_a_pruned_trial_stops_at_once(data: TrialData, config: TrialConfig) -> None:
    record = run(config, data, on_epoch=lambda e: False)
    assert record.state == "pruned"
    assert len(record.epochs) == 1


def test_a_rate_that_destroys_the_weights_ends_as_diverged_without_a_score(
    data: TrialData, config: TrialConfig
) -> None:
    record = run(dataclasses.replace(config, head_lr=1e30), data)
    assert record.state == "diverged"
    assert record.score is None
    assert "epoch 1, step" in (record.reason or "")


def test_outputs_that_are_not_finite_are_no_score(data: TrialData, config: TrialConfig, monkeypatch: Any) -> None:
    real = InitialModels.checkout

    def broken(*args: Any) -> Any:
        model, *rest = real(*args)
        model.head.register_forward_hook(lambda m, i, o: o if m.training else o * float("nan"))
        return model, *rest

    monkeypatch.setattr(InitialModels, "checkout", broken)
    record = run(config, data)
    assert (record.state, record.score, record.epochs) == ("diverged", None, ())


def test_what_diverged_after_a_good_epoch_has_no_score(data: TrialData, config: TrialConfig, monkeypatch: Any) -> None:
    real = loop.train_epoch

    def diverging(model: Any, optimizer: Any, course: Any, feed: Any, epoch: int, **options: Any) -> float:
        if epoch == 2:
            raise DivergedError("the training loss became nan")
        return real(model, optimizer, course, feed, epoch, **options)

    monkeypatch.setattr(loop, "train_epoch", diverging)
    record = run(config, data)
    assert (record.state, len(record.epochs)) == ("diverged", 1)
    assert (record.score, record.best_epoch) == (None, None)


def test_running_out_of_memory_is_a_state(data: TrialData, config: TrialConfig, monkeypatch: Any) -> None:
    def full(*args: Any, **kwargs: Any) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(loop, "train_epoch", full)
    record = run(config, data)
    assert record.state == "out_of_memory"
    assert "2 GiB" in (record.reason or "")


@pytest.mark.parametrize("policy", ["updated_stats", "recalibrated"])
def test_a_checkpoint_gives_the_best_epochs_predictions_again(
    data: TrialData, config: TrialConfig, tmp_path: Path, policy: Any
) -> None:
    path = tmp_path / "best.safetensors"
    record = run(dataclasses.replace(config, epochs=3, batchnorm=policy), data, checkpoint=path)
    model = restore(job_of(record.config), data, "none", CPU, path)
    probabilities = loop.predict_images(model, data, data.validation, 8, CPU)
    from harness.results.metrics import all_metrics

    scores = all_metrics(probabilities, data.labels[data.validation])
    assert record.best_epoch is not None
    best = record.epochs[record.best_epoch - 1]
    assert {k: v for k, v in best.validation.items() if k != "loss"} == scores
    assert record.checkpoint == path.name
    stored = load_file(path)
    assert not any(name.startswith("stages.stem.") and name.endswith("weight") for name in stored)


def test_evaluation_does_not_depend_on_how_the_rows_fall_into_batches(data: TrialData, config: TrialConfig) -> None:
    model, _, _ = InitialModels().checkout(config, 0, data, "none", CPU)
    whole = loop.predict_images(model, data, data.validation, 8, CPU)
    turned = loop.predict_images(model, data, data.validation[::-1].copy(), 8, CPU)
    assert len(whole) == 17
    assert np.array_equal(whole, turned[::-1])


def test_sixteen_bit_images_keep_their_depth(data: TrialData) -> None:
    deep = dataclasses.replace(data, images=(data.images.astype(np.uint16) * 257))
    rows = np.arange(4)
    assert torch.allclose(deep.batch(rows, CPU), data.batch(rows, CPU), atol=1e-7)


def test_training_drops_the_tail_and_evaluation_pads_it() -> None:
    rows = np.arange(43)
    order = epoch_order(rows, seed=5, epoch=1, batch_size=8)
    assert order.shape == (5, 8)
    assert len(np.unique(order)) == 40
    assert not np.array_equal(order, epoch_order(rows, seed=5, epoch=2, batch_size=8))
    batches = padded(rows, 8)
    assert batches.shape == (6, 8)
    assert np.array_equal(batches.flatten()[:43], rows)


def test_the_schedule_rises_then_falls_towards_zero() -> None:
    factors = [lr_factor(step, 100, 0.1) for step in range(100)]
    assert 0 < factors[0] < 0.2
    assert max(factors) == 1 == factors[10]
    assert factors[99] < 1e-3
    assert all(a > b for a, b in pairwise(factors[10:]))


def test_the_trial_may_be_the_first_of_its_process_to_use_the_gpu(config: TrialConfig, monkeypatch: Any) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch.cuda, "init", lambda: asked.append("init"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: asked.append("reset"))
    RecordBuilder(job_of(config), "accuracy", torch.device("cuda"), NO_FALLBACK)
    assert asked == ["init", "reset"]  # resetting alone is refused where nothing has used the GPU yet
