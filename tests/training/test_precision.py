"""Which arithmetic is chosen, that it is remembered, and that it changes rounding and nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.config.trial import TrialConfig
from harness.model.transfer import build
from harness.results.records import TrialJob, TrialRecord
from harness.training import precision, trial
from harness.training.frozen_features.worker_cache import CachedFeatures, Plan, WorkerCache, cache_key
from harness.training.precision import CANDIDATES, EXACT, FLOAT32, Arithmetic, Choice, Chooser, probe, resolve_precision
from harness.training.trial import run_trial
from harness.training.trial_data import TrialData

CPU = torch.device("cpu")
HALF = Arithmetic(bfloat16=True, channels_last=True)


class Fixed(Chooser):
    """Chooses what it is told."""

    def __init__(self, choice: Choice) -> None:
        super().__init__("auto")
        self.choice = choice

    def choose(self, *args: Any) -> Choice:
        return self.choice


def run(config: TrialConfig, data: TrialData, choice: Choice, plan: Plan | None = None) -> TrialRecord:
    job = TrialJob("x/0", "search", config.strategy, 0, config, 0, "search")
    return run_trial(
        job,
        data,
        lambda e: True,
        objective="balanced_accuracy",
        weights_name="none",
        device=CPU,
        worker_cache=WorkerCache(plan, Fixed(choice)),
    )


def test_a_cpu_computes_exactly_and_an_accelerator_as_fast_as_it_can_unless_told() -> None:
    assert (resolve_precision(None, "cpu"), resolve_precision(None, "cuda:0")) == ("exact", "auto")
    assert (resolve_precision("auto", "cpu"), resolve_precision("exact", "cuda:0")) == ("auto", "exact")


@pytest.mark.parametrize("fastest", CANDIDATES, ids=str)
def test_the_fastest_candidate_is_chosen_for_each_pass(monkeypatch: pytest.MonkeyPatch, fastest: Arithmetic) -> None:
    clock = [0.0]

    def timed(network: Any, arithmetic: Arithmetic, images: Any, labels: Any, training: bool) -> None:
        wanted = fastest if training else Arithmetic(channels_last=True)
        clock[0] += 1.0 if arithmetic == wanted else 1.5

    monkeypatch.setattr(precision, "_pass", timed)
    monkeypatch.setattr(precision, "now", lambda device: clock[0])
    monkeypatch.setattr(precision, "PROBE_SECONDS", 0.0)
    found = probe(build("squeezenet1_1", 3), 32, 4, CPU)
    assert found == Choice(forward=Arithmetic(channels_last=True), training=fastest)


def test_a_small_gain_is_not_worth_the_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def timed(network: Any, arithmetic: Arithmetic, *rest: Any) -> None:
        clock[0] += 1.05 if arithmetic == FLOAT32 else 1.0

    monkeypatch.setattr(precision, "_pass", timed)
    monkeypatch.setattr(precision, "now", lambda device: clock[0])
    monkeypatch.setattr(precision, "PROBE_SECONDS", 0.0)
    assert probe(build("squeezenet1_1", 3), 32, 4, CPU) == EXACT


def test_what_loses_at_once_is_not_tried_on_whole_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, whole = [0.0], set()

    def timed(network: Any, arithmetic: Arithmetic, images: Any, *rest: Any) -> None:
        clock[0] += len(images) * (20.0 if arithmetic.bfloat16 else 1.0)  # a CPU that emulates it
        if len(images) == 16:
            whole.add(arithmetic)

    monkeypatch.setattr(precision, "_pass", timed)
    monkeypatch.setattr(precision, "now", lambda device: clock[0])
    monkeypatch.setattr(precision, "PROBE_SECONDS", 0.0)
    assert probe(build("squeezenet1_1", 3), 32, 16, CPU) == EXACT
    assert whole == {FLOAT32, Arithmetic(channels_last=True)}


def test_a_real_probe_changes_no_value_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "PROBE_SECONDS", 0.0)
    model = build("squeezenet1_1", 3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert isinstance(probe(model, 32, 4, CPU), Choice)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_choice_is_remembered_and_exact_never_probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def once(*args: Any) -> Choice:
        asked.append(args)
        return Choice(training=HALF)

    monkeypatch.setattr(precision, "probe", once)
    model, notes = build("squeezenet1_1", 3), tmp_path / "cache" / "precision.json"
    assert Chooser("exact", notes).choose(model, 32, 8, CPU) == EXACT
    assert not asked
    for _ in range(2):  # two workers
        assert Chooser("auto", notes).choose(model, 32, 8, CPU) == Choice(training=HALF)
    assert len(asked) == 1
    Chooser("auto", notes).choose(model, 64, 8, CPU)
    assert len(asked) == 2


@pytest.mark.parametrize("choice", [Choice(HALF, HALF), Choice(HALF, FLOAT32), Choice(FLOAT32, HALF)], ids=str)
def test_a_trial_in_another_arithmetic_keeps_the_contract_and_nearly_the_numbers(
    data: TrialData, config: TrialConfig, choice: Choice
) -> None:
    exact = run(config, data, EXACT)
    other = run(config, data, choice)
    assert (other.state, other.reason) == ("complete", None)
    assert (exact.precision, other.precision) == ("float32", str(choice))
    first, again = exact.epochs[0].train_loss, other.epochs[0].train_loss
    assert first != again or not choice.training.bfloat16
    assert first == pytest.approx(again, rel=0.05)


@pytest.mark.parametrize("choice", [Choice(HALF, HALF), Choice(HALF, FLOAT32)], ids=str)
def test_activations_are_shared_in_the_arithmetic_they_were_computed_in(
    data: TrialData, config: TrialConfig, tmp_path: Path, choice: Choice
) -> None:
    config = dataclasses.replace(config, batchnorm="fixed_stats")
    data = dataclasses.replace(data, source="sixty")
    facts = cache_key(config, "search", random_weights=True)
    plan = Plan(tmp_path / "prefix", (CachedFeatures(*facts, cuts=(3,)),))
    shared = run(config, data, choice, plan)
    assert shared.cache_reason is None
    again = run(config, data, choice, plan)
    assert [epoch.train_loss for epoch in shared.epochs] == [epoch.train_loss for epoch in again.epochs]
    exact = run(config, data, EXACT, plan)
    assert len(list((tmp_path / "prefix").iterdir())) == 2  # an entry of its own
    (half, whole) = sorted(file.stat().st_size for file in (tmp_path / "prefix").glob("*/cut3-view0.rows"))
    assert whole == 2 * half
    assert np.isclose(exact.epochs[0].train_loss, shared.epochs[0].train_loss, rtol=0.05)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize(("precision_of_study", "fused"), [("exact", False), ("auto", True)])
def test_optimizers_are_fused_in_auto_alone(
    data: TrialData,
    config: TrialConfig,
    monkeypatch: pytest.MonkeyPatch,
    optimizer: Any,
    precision_of_study: Any,
    fused: bool,
) -> None:
    made, real = [], trial.make_optimizer

    def spy(*args: Any, **options: Any) -> torch.optim.Optimizer:
        made.append(real(*args, **options))
        return made[-1]

    monkeypatch.setattr(trial, "make_optimizer", spy)
    monkeypatch.setattr(Chooser, "choose", lambda *a: EXACT)
    job = TrialJob("x/0", "search", config.strategy, 0, dataclasses.replace(config, optimizer=optimizer), 0, "search")
    record = trial.run_trial(
        job,
        data,
        lambda epoch: True,
        objective="accuracy",
        weights_name="none",
        device=CPU,
        worker_cache=WorkerCache(chooser=Chooser(precision_of_study)),
    )
    assert (record.state, record.warnings) == ("complete", ())
    assert bool(made[0].defaults["fused"]) is fused
