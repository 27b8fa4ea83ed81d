"""What `restored` makes is what the constructor makes."""

from __future__ import annotations

import dataclasses

import pytest

from harness.config.from_json import restored
from harness.config.trial import TrialConfig
from harness.results.records import EpochRecord, TrialJob, TrialRecord

CONFIG = TrialConfig(strategy="fine_tuning", backbone="resnet18", unfreeze_depth=2, head_lr=1e-3, backbone_lr=None)
EPOCH = EpochRecord(1, 0.5, {"loss": 0.4}, 1e-3, None, 2.0)
RECORD = TrialRecord(
    job=TrialJob("fine_tuning/0", "search", "fine_tuning", 0, CONFIG, 0, "search"),
    state="complete",
    reason=None,
    epochs=(EPOCH, EPOCH),
    best_epoch=1,
    score=0.8,
    seconds_alone=3.0,
    trainable_parameters=1,
    total_parameters=2,
    device="cpu",
    started_at="2026-01-01T00:00:00+00:00",
    warnings=("one",),
)


def test_a_record_comes_back_from_json_as_it_was() -> None:
    back = TrialRecord.from_json(RECORD.to_json())
    assert back == RECORD
    assert hash(back.config) == hash(RECORD.config)
    assert dataclasses.replace(back, score=0.9).trainable_share == 0.5


def test_it_is_as_frozen_as_any_other() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        restored(TrialConfig, CONFIG.to_json()).head_lr = 1.0  # type: ignore[misc]


def test_it_does_not_change_with_the_values_it_was_made_from() -> None:
    values = CONFIG.to_json()
    made = restored(TrialConfig, values)
    values["head_lr"] = 1.0
    assert made == CONFIG


def test_a_field_that_is_not_given_has_its_default() -> None:
    values = CONFIG.to_json()
    del values["batch_size"]  # a study from before there was this parameter
    assert restored(TrialConfig, values) == CONFIG


def test_a_field_that_is_missing_or_unknown_is_named() -> None:
    values = CONFIG.to_json()
    with pytest.raises(TypeError, match="nonsense"):
        restored(TrialConfig, values | {"nonsense": 1})
    del values["head_lr"]
    with pytest.raises(TypeError, match="head_lr"):
        restored(TrialConfig, values)
