"""Images of one, two and five channels train, share frozen work and keep the contract as those of three do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sharing import assert_equal, plan_for

from harness.config.trial import TrialConfig
from harness.results.records import TrialJob, TrialRecord
from harness.training.frozen_features.cache_plan import cut_bytes
from harness.training.frozen_features.features import ViewFamily, identity
from harness.training.frozen_features.initial_models import InitialModels
from harness.training.frozen_features.worker_cache import WorkerCache
from harness.training.loop import predict_images
from harness.training.precision import FLOAT32, Choice, Chooser
from harness.training.trial import restore, run_trial
from harness.training.trial_data import TrialData

CPU = torch.device("cpu")
Run = Callable[..., tuple[TrialRecord, dict[str, torch.Tensor]]]


def of_channels(data: TrialData, channels: int) -> TrialData:
    """The same labels and splits; the class decides how bright a channel is."""
    images = np.random.default_rng(channels).integers(0, 120, (60, 32, 32, channels))
    images[np.arange(60), :, :, data.labels % channels] += 30 * (1 + data.labels)[:, None, None]
    return dataclasses.replace(data, images=images.astype(np.uint8), source=f"sixty of {channels}")


@pytest.fixture
def config(config: TrialConfig) -> TrialConfig:
    return dataclasses.replace(config, batchnorm="fixed_stats")


@pytest.mark.parametrize(
    ("channels", "change"),
    [
        (1, {"augmentation": "flips"}),
        (2, {"augmentation": "natural"}),
        (5, {"augmentation": "microscopy"}),
        (5, {"augmentation": "microscopy", "batchnorm": "recalibrated"}),
        (5, {"head_solver": "logistic", "unfreeze_depth": 0, "backbone_lr": None, "strategy": "feature_extraction"}),
    ],
)
def test_sharing_changes_no_bit_with_any_number_of_channels(
    run: Run, data: TrialData, config: TrialConfig, tmp_path: Path, channels: int, change: dict[str, Any]
) -> None:
    config, data = dataclasses.replace(config, **change), of_channels(data, channels)
    alone = run(config, data=data)
    sharing = WorkerCache(plan_for(tmp_path / "prefix", config))
    assert_equal(run(config, sharing, data=data), alone)
    again = run(config, sharing, data=data)
    assert again[0].cache_reason is None
    assert_equal(again, alone)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_the_whole_model_trains_and_its_checkpoint_gives_its_answers(
    data: TrialData, config: TrialConfig, tmp_path: Path, channels: int
) -> None:
    config, data = dataclasses.replace(config, unfreeze_depth=5, mixup=0.2), of_channels(data, channels)
    job, path = TrialJob("x/0", "search", config.strategy, 0, config, 0, "search"), tmp_path / "best.safetensors"
    record = run_trial(
        job, data, lambda e: True, objective="accuracy", weights_name="bundled", device=CPU, checkpoint=path
    )
    assert record.state == "complete", record.reason
    model = restore(job, data, "bundled", CPU, path)
    assert model.in_channels == channels
    answers = predict_images(model, data, data.validation, 8, CPU).argmax(axis=1)
    assert (answers == data.labels[data.validation]).mean() == record.score


@pytest.mark.parametrize(("wrong", "channel"), [("mean", 4), ("std", 3)])
def test_the_normalisation_of_every_channel_is_checked(
    run: Run, data: TrialData, config: TrialConfig, monkeypatch: pytest.MonkeyPatch, wrong: str, channel: int
) -> None:
    real = InitialModels.checkout

    def off(*args: Any) -> Any:
        model, *rest = real(*args)
        values = list(getattr(model, wrong))
        values[channel] += 0.01
        setattr(model, wrong, tuple(values))
        return model, *rest

    monkeypatch.setattr(InitialModels, "checkout", off)
    with pytest.raises(AssertionError, match=f"normalisation must be that of none.*channel {channel}"):
        run(config, data=of_channels(data, 5))


def test_models_and_activations_of_different_numbers_of_channels_are_kept_apart(
    data: TrialData, config: TrialConfig
) -> None:
    models, names = InitialModels(), []
    for channels in (1, 2, 3, 5, 8):
        own = dataclasses.replace(of_channels(data, channels), source="same")
        model, initial, was_kept = models.checkout(config, 0, own, "none", CPU)
        assert (model.in_channels, was_kept) == (channels, False)
        names.append(identity(initial, own, ViewFamily("none", 0), 8, FLOAT32, CPU))
    assert all(one != other for index, one in enumerate(names) for other in names[:index])
    assert len({name["weights"] for name in names[2:]}) == 3


def test_the_arithmetic_is_probed_with_the_images_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.model.transfer import build
    from harness.training import precision

    seen: list[int] = []
    monkeypatch.setattr(precision, "probe", lambda model, *_: seen.append(model.in_channels) or Choice())
    chooser = Chooser("auto", tmp_path / "precision.json")
    for channels in (3, 5, 3, 5, 1):
        chooser.choose(build("squeezenet1_1", 3, in_channels=channels), 32, 4, CPU)
    assert seen == [3, 5, 1]
    monkeypatch.undo()
    monkeypatch.setattr(precision, "PROBE_SECONDS", 0.0)
    assert isinstance(precision.probe(build("squeezenet1_1", 3, in_channels=5), 32, 2, CPU), Choice)


def test_activations_take_the_same_space_with_more_channels() -> None:
    assert cut_bytes("resnet18", 64, 5) == cut_bytes("resnet18", 64, 1) == cut_bytes("resnet18", 64)
