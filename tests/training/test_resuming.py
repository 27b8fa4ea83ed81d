"""A trial that was killed goes on where it stood: ten epochs are five, a restart, and five, bit for bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from harness.config.trial import TrialConfig
from harness.results.records import EpochRecord, TrialJob, TrialRecord
from harness.training import trial
from harness.training.trial import run_trial
from harness.training.trial_data import TrialData

CPU = torch.device("cpu")
WAYS: dict[str, dict[str, Any]] = {
    "adamw, batch statistics": {"batchnorm": "updated_stats", "optimizer": "adamw"},
    "sgd, progressive from the stem": {
        "optimizer": "sgd",
        "unfreeze_schedule": "progressive",
        "unfreeze_from": "stem",
        "unfreeze_depth": 3,
    },
    "moving average, head first, recalibrated": {
        "ema": 0.9,
        "unfreeze_schedule": "head_first",
        "batchnorm": "recalibrated",
        "head": "mlp",
        "head_dropout": 0.3,
    },
    "mixed images, balanced classes, clipped": {
        "mixup": 0.4,
        "cutmix": 1.0,
        "imbalance": "balanced_sampling",
        "gradient_clip": 0.5,
        "batchnorm": "train_mode",
    },
}


@pytest.fixture
def data(data: TrialData) -> TrialData:
    """Two steps an epoch, from which other images are left out each time, and a batch and a half to score."""
    return dataclasses.replace(data, train=data.train[:19], validation=data.validation[:12])


class KilledError(Exception):
    """Stands for the end of the process."""


def run(config: TrialConfig, data: TrialData, folder: Path, *, kill_at: int = 0, seed: int = 0) -> TrialRecord:
    told: list[EpochRecord] = []

    def on_epoch(record: EpochRecord) -> bool:
        told.append(record)
        if record.epoch == kill_at:
            raise KilledError
        return True

    job = TrialJob("fine_tuning/0", "search", config.strategy, 0, config, seed, "search")
    return run_trial(
        job,
        data,
        on_epoch,
        objective="accuracy",
        weights_name="none",
        device=CPU,
        checkpoint=folder / "best.safetensors",
        resume=folder / "trial.resume",
        resume_every=0,
    )


def results(record: TrialRecord) -> list[dict[str, Any]]:
    return [{k: v for k, v in dataclasses.asdict(epoch).items() if k != "seconds"} for epoch in record.epochs]


@pytest.mark.parametrize("way", WAYS)
def test_ten_epochs_equal_five_a_restart_and_five(
    way: str, data: TrialData, config: TrialConfig, tmp_path: Path
) -> None:
    config = dataclasses.replace(config, epochs=10, **WAYS[way])
    whole = run(config, data, tmp_path / "whole")
    with pytest.raises(KilledError):
        run(config, data, tmp_path / "cut", kill_at=6)
    resumed = run(config, data, tmp_path / "cut")
    assert results(resumed) == results(whole)
    assert (resumed.best_epoch, resumed.score, resumed.state) == (whole.best_epoch, whole.score, "complete")
    one, other = (load_file(tmp_path / name / "best.safetensors") for name in ("whole", "cut"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_only_what_was_not_done_is_trained_again(
    data: TrialData, config: TrialConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(config, epochs=4)
    with pytest.raises(KilledError):
        run(config, data, tmp_path, kill_at=3)
    trained: list[int] = []
    real = trial.loop.train_epoch

    def noted(model: Any, optimizer: Any, course: Any, feed: Any, epoch: int, **options: Any) -> float:
        trained.append(epoch)
        return real(model, optimizer, course, feed, epoch, **options)

    monkeypatch.setattr(trial.loop, "train_epoch", noted)
    record = run(config, data, tmp_path)
    assert trained == [3, 4]  # the note of epoch 3 was not written before the kill
    assert [epoch.epoch for epoch in record.epochs] == [1, 2, 3, 4]
    assert not (tmp_path / "trial.resume").exists()


@pytest.mark.parametrize("harm", ["damaged", "another seed", "another configuration"])
def test_a_note_that_does_not_fit_is_not_taken(harm: str, data: TrialData, config: TrialConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(config, epochs=3)
    whole = run(config, data, tmp_path / "whole")
    before = dataclasses.replace(config, head_lr=0.02) if harm == "another configuration" else config
    with pytest.raises(KilledError):
        run(before, data, tmp_path, kill_at=3, seed=int(harm == "another seed"))
    if harm == "damaged":
        note = tmp_path / "trial.resume"
        note.write_bytes(note.read_bytes()[:1000])
    assert results(run(config, data, tmp_path)) == results(whole)


def test_a_short_trial_writes_no_note(data: TrialData, config: TrialConfig, tmp_path: Path) -> None:
    job = TrialJob("fine_tuning/0", "search", config.strategy, 0, config, 0, "search")
    note = tmp_path / "trial.resume"

    def on_epoch(record: EpochRecord) -> bool:
        assert not note.exists()
        return True

    run_trial(job, data, on_epoch, objective="accuracy", weights_name="none", device=CPU, resume=note)
