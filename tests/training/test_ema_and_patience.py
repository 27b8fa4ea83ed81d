"""The moving average is what is scored and kept; patience ends a trial, but not before all of it trains."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from harness.config.trial import TrialConfig
from harness.results.records import TrialJob, TrialRecord
from harness.training.ema import Average
from harness.training.trial import restore, run_trial
from harness.training.trial_data import TrialData

CPU = torch.device("cpu")


def run(config: TrialConfig, data: TrialData, **options: Any) -> TrialRecord:
    job = TrialJob("x/0", "search", config.strategy, 0, config, 0, "search")
    return run_trial(
        job, data, lambda e: True, objective="accuracy", **({"weights_name": "none", "device": CPU} | options)
    )


def test_the_decay_rises_to_its_full_value() -> None:
    layer = nn.Linear(1, 1)
    nn.init.zeros_(layer.weight)
    average, wanted = Average({"weight": layer.weight}, 0.5), 0.0
    for step in range(1, 20):
        nn.init.constant_(layer.weight, float(step))
        average.update()
        decay = min(0.5, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * step
    with average.swapped_in():
        assert layer.weight.item() == pytest.approx(wanted, rel=1e-5)
    assert layer.weight.item() == 19


def test_what_does_not_move_stays_bit_identical() -> None:
    layer = nn.BatchNorm1d(64)
    nn.init.normal_(layer.weight)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    average = Average(layer.state_dict(), 0.999)
    for _ in range(50):
        average.update()
    with average.swapped_in():
        assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())


def test_the_average_is_what_is_scored_and_kept(data: TrialData, config: TrialConfig, tmp_path: Path) -> None:
    plain, averaged = (
        run(dataclasses.replace(config, ema=decay), data, checkpoint=tmp_path / f"{decay}.safetensors")
        for decay in (0.0, 0.99)
    )
    assert [e.train_loss for e in plain.epochs] == [e.train_loss for e in averaged.epochs]  # training is the same
    assert [e.validation for e in plain.epochs] != [e.validation for e in averaged.epochs]
    one, other = (load_file(tmp_path / f"{decay}.safetensors") for decay in (0.0, 0.99))
    assert not torch.equal(one["head.weight"], other["head.weight"])
    assert averaged.state == "complete"
    job = TrialJob("x/0", "search", config.strategy, 0, averaged.config, 0, "search")
    model = restore(job, data, "none", CPU, tmp_path / "0.99.safetensors")
    assert torch.equal(model.head.weight, other["head.weight"])


@pytest.mark.parametrize(("schedule", "ends"), [("at_once", 3), ("head_first", 7), ("progressive", 9)])
def test_patience_ends_a_trial_but_not_before_all_of_it_trains(
    schedule: Any, ends: int, data: TrialData, config: TrialConfig
) -> None:
    # nothing learns, so the first epoch is the best: the head alone for 5 epochs, or phases of 4, 3 and 3 epochs
    config = dataclasses.replace(
        config,
        head_lr=1e-30,
        backbone_lr=1e-30,
        weight_decay=0.0,
        epochs=10,
        early_stopping=2,
        batchnorm="frozen",
        unfreeze_schedule=schedule,
        head_fraction=0.5,
    )
    record = run(config, data)
    assert record.state == "complete"
    assert (len(record.epochs), record.best_epoch) == (ends, 1)


def test_a_trial_that_gets_better_is_not_ended(data: TrialData, config: TrialConfig) -> None:
    record = run(dataclasses.replace(config, early_stopping=5, epochs=6), data)
    assert len(record.epochs) == 6
