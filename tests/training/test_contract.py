"""Each rule of the contract is broken on purpose; the trial must fail with the tensor's name."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from harness.config.trial import TrialConfig
from harness.model import batchnorm, freezing
from harness.results.records import TrialRecord
from harness.training import loop, trial
from harness.training.inputs import TrialData
from harness.training.trial import TrialJob, run_trial

CPU = torch.device("cpu")


def run(config: TrialConfig, data: TrialData) -> TrialRecord:
    job = TrialJob("x/0", "search", config.strategy, 0, config, 0, "search")
    return run_trial(job, data, lambda e: True, objective="balanced_accuracy", weights_name="none", device=CPU)


def after_epoch(monkeypatch: pytest.MonkeyPatch, harm: Any) -> None:
    real = loop.train_epoch

    def harmed(model: Any, *args: Any, **kwargs: Any) -> float:
        loss = real(model, *args, **kwargs)
        harm(model)
        return loss

    monkeypatch.setattr(loop, "train_epoch", harmed)


def test_a_frozen_weight_that_moves_fails_the_trial(
    data: TrialData, config: TrialConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_epoch(monkeypatch, lambda model: next(model.stages["stem"].parameters()).data.mul_(1.0001))
    record = run(config, data)
    assert record.state == "failed"
    assert "stages.stem." in (record.reason or "")
    assert "is frozen but changed" in (record.reason or "")


def test_statistics_that_drift_in_a_frozen_stage_fail_the_trial(
    data: TrialData, config: TrialConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batchnorm, "apply_policy", lambda model, policy, stages: batchnorm_train(model))

    def batchnorm_train(model: Any) -> None:
        # the policy is not applied: plain train() moves every statistic
        model.train = lambda mode=True: torch.nn.Module.train(model, mode)

    record = run(config, data)
    assert record.state == "failed"
    assert "running_mean" in (record.reason or "")


def test_a_tensor_the_optimizer_does_not_know_fails_the_trial(
    data: TrialData, config: TrialConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trial.make_optimizer

    def forgetful(model: Any, config: TrialConfig) -> torch.optim.Optimizer:
        optimizer = real(model, config)
        optimizer.param_groups[0]["params"] = optimizer.param_groups[0]["params"][1:]
        return optimizer

    monkeypatch.setattr(trial, "make_optimizer", forgetful)
    record = run(config, data)
    assert record.state == "failed"
    assert "never stepped" in (record.reason or "")


def test_a_head_without_a_gradient_fails_the_trial(
    data: TrialData, config: TrialConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = freezing.apply

    def headless(model: Any, names: Any) -> None:
        real(model, [name for name in names if not name.startswith("head.")])

    monkeypatch.setattr(freezing, "apply", headless)
    record = run(config, data)
    assert record.state == "failed"
    assert "head." in (record.reason or "")
    assert "no gradient" in (record.reason or "")


def test_a_frozen_tensor_with_a_gradient_fails_the_trial(
    data: TrialData, config: TrialConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = freezing.apply

    def generous(model: Any, names: Any) -> None:
        real(model, [name for name, _ in model.named_parameters()])

    monkeypatch.setattr(freezing, "apply", generous)
    record = run(config, data)
    assert record.state == "failed"
    assert "is frozen but got a gradient" in (record.reason or "")


@pytest.mark.parametrize("policy", ["frozen", "fixed_stats", "updated_stats", "recalibrated", "train_mode"])
@pytest.mark.parametrize("schedule", ["at_once", "head_first", "progressive"])
def test_correct_trials_keep_the_contract(data: TrialData, config: TrialConfig, policy: str, schedule: str) -> None:
    config = dataclasses.replace(config, batchnorm=policy, unfreeze_schedule=schedule, epochs=3, optimizer="sgd")  # type: ignore[arg-type]
    record = run(config, data)
    assert (record.state, record.reason) == ("complete", None)


def test_a_rate_below_the_resolution_of_the_weights_is_a_warning(data: TrialData, config: TrialConfig) -> None:
    record = run(dataclasses.replace(config, backbone_lr=1e-30, weight_decay=0.0), data)
    assert record.state == "complete"
    assert any("did not move" in warning for warning in record.warnings)
