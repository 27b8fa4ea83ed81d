"""Each rule of the contract is broken on purpose; the trial must fail with the tensor's name."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.config.trial import TrialConfig
from harness.errors import ContractError
from harness.model import batchnorm, freezing
from harness.results.records import TrialJob, TrialRecord
from harness.training import contract, loop, trial
from harness.training.frozen_features.initial_models import InitialModels
from harness.training.trial import restore, run_trial
from harness.training.trial_data import TrialData

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
    assert "is frozen, but it changed" in (record.reason or "")


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

    def forgetful(model: Any, config: TrialConfig, *_: Any, **__: Any) -> torch.optim.Optimizer:
        optimizer = real(model, config)
        optimizer.param_groups[0]["params"] = optimizer.param_groups[0]["params"][1:]
        return optimizer

    monkeypatch.setattr(trial, "make_optimizer", forgetful)
    record = run(config, data)
    assert record.state == "failed"
    assert "never updated" in (record.reason or "")


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
    assert "is frozen, but it got a gradient" in (record.reason or "")


@pytest.mark.parametrize("policy", ["frozen", "fixed_stats", "updated_stats", "recalibrated", "train_mode"])
@pytest.mark.parametrize("schedule", ["at_once", "head_first", "progressive"])
def test_correct_trials_keep_the_contract(data: TrialData, config: TrialConfig, policy: str, schedule: str) -> None:
    config = dataclasses.replace(config, batchnorm=policy, unfreeze_schedule=schedule, epochs=3, optimizer="sgd")  # type: ignore[arg-type]
    record = run(config, data)
    assert (record.state, record.reason) == ("complete", None)


def test_a_rate_below_the_resolution_of_the_weights_is_a_warning(data: TrialData, config: TrialConfig) -> None:
    record = run(dataclasses.replace(config, backbone_lr=1e-30, weight_decay=0.0), data)
    assert record.state == "complete"
    assert any("kept its values" in warning for warning in record.warnings)


def test_an_optimizer_that_was_not_rebuilt_fails_the_trial(
    data: TrialData, config: TrialConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stages unfreeze, but the optimizer is still that of the head alone."""
    real = trial.make_optimizer
    frozen = dataclasses.replace(config, unfreeze_depth=0)
    monkeypatch.setattr(trial, "make_optimizer", lambda model, config, *_, **__: real(model, frozen))
    record = run(dataclasses.replace(config, unfreeze_schedule="head_first", head_fraction=0.5), data)
    assert record.state == "failed"
    assert "never updated" in (record.reason or "")
    assert "stages.stage3." in (record.reason or "")
    assert [epoch.epoch for epoch in record.epochs] == [1, 2]  # the head's own epoch was right


def test_a_frozen_weight_that_decays_fails_the_trial(
    data: TrialData, config: TrialConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gradient of zeros is enough for an optimizer to let a frozen tensor decay."""
    real = trial.make_optimizer

    def eager(model: Any, config: TrialConfig, *_: Any, **__: Any) -> torch.optim.Optimizer:
        optimizer = real(model, config)
        stem = next(model.stages["stem"].parameters())
        optimizer.add_param_group(
            {"params": [stem], "lr": 0.1, "peak_lr": 0.1, "weight_decay": 0.1, "stage": "stem", "name": "stem.decay"}
        )

        def forget_nothing(*_: Any) -> None:
            stem.grad = torch.zeros_like(stem)

        def leave_no_trace(*_: Any) -> None:
            stem.grad = None

        optimizer.register_step_pre_hook(forget_nothing)
        optimizer.register_step_post_hook(leave_no_trace)
        return optimizer

    monkeypatch.setattr(trial, "make_optimizer", eager)
    record = run(config, data)
    assert record.state == "failed"
    assert "stages.stem.features_0.0.weight is frozen, but it changed" in (record.reason or "")


def test_a_head_for_another_number_of_classes_fails_the_trial(
    data: TrialData, config: TrialConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = InitialModels.checkout

    def wide(*args: Any) -> Any:
        model, *rest = real(*args)
        model.head = torch.nn.Linear(model.head.in_features, 4)
        return model, *rest

    monkeypatch.setattr(InitialModels, "checkout", wide)
    record = run(config, data)
    assert record.state == "failed"
    assert "must give 3 numbers for each image, but its output is (8, 4)" in (record.reason or "")


@pytest.mark.parametrize("wrong", [{"mean": (0.5, 0.456, 0.406)}, {"std": (0.229, 0.224, 0.5)}])
def test_a_normalisation_that_does_not_belong_to_the_weights_fails_the_trial(
    data: TrialData, config: TrialConfig, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any]
) -> None:
    real = InitialModels.checkout

    def off(*args: Any) -> Any:
        model, *rest = real(*args)
        for name, value in wrong.items():
            setattr(model, name, value)
        return model, *rest

    monkeypatch.setattr(InitialModels, "checkout", off)
    record = run(config, data)
    assert record.state == "failed"
    assert "normalisation must be that of none for mobilenet_v3_small" in (record.reason or "")
    assert f"channel {0 if 'mean' in wrong else 2}" in (record.reason or "")


def test_a_gradient_that_is_not_finite_ends_the_trial_with_the_tensor_s_name(
    data: TrialData, config: TrialConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = InitialModels.checkout

    def spoiled(*args: Any) -> Any:
        model, *rest = real(*args)
        model.head.weight.register_hook(lambda gradient: gradient * float("nan"))
        return model, *rest

    monkeypatch.setattr(InitialModels, "checkout", spoiled)
    record = run(config, data)
    assert record.state == "diverged"
    assert "the gradient of head.weight became nan" in (record.reason or "")


def test_classes_in_another_order_are_refused_when_a_model_is_used_again(
    data: TrialData, config: TrialConfig, tmp_path: Path
) -> None:
    job = TrialJob("x/0", "search", config.strategy, 0, config, 0, "search")
    path = tmp_path / "best.safetensors"
    run_trial(job, data, lambda e: True, objective="accuracy", weights_name="none", device=CPU, checkpoint=path)
    turned = dataclasses.replace(data, classes=("red", "blue", "green"))
    with pytest.raises(ContractError, match=r"class 1 was 'green' in training but is 'blue' now"):
        restore(job, turned, "none", CPU, path)
    restore(job, data, "none", CPU, path)


def test_a_model_that_answers_otherwise_is_not_handed_out() -> None:
    trained = np.array([[0.7, 0.3], [0.2, 0.8]], np.float32)
    contract.check_export(trained, trained + np.float32(1e-6))
    with pytest.raises(ContractError, match=r"up to 0\.6 away"):
        contract.check_export(trained, trained[:, ::-1])


def test_a_zero_initialised_head_is_a_warning(data: TrialData, config: TrialConfig) -> None:
    record = run(dataclasses.replace(config, head_init="zero"), data)
    assert record.state == "complete"
    assert any("zero gradient at the first step of epoch 1" in warning for warning in record.warnings)


def test_a_warm_up_from_next_to_nothing_passes(data: TrialData, config: TrialConfig) -> None:
    assert run(dataclasses.replace(config, warmup_fraction=0.9, epochs=3), data).state == "complete"


def test_a_step_at_rate_zero_passes(data: TrialData, config: TrialConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    real = loop.lr_factor
    monkeypatch.setattr(loop, "lr_factor", lambda step, *rest: 0.0 if step == 0 else real(step, *rest))
    assert run(config, data).state == "complete"


def test_the_contract_s_share_of_the_time_is_recorded(data: TrialData, config: TrialConfig) -> None:
    record = run(config, data)
    assert 0 < record.contract_seconds < record.seconds_alone
