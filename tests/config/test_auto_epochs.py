"""`epochs: auto` gives few images enough optimizer steps, and many images no more epochs than they need."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from harness.config.auto_epochs import FEWEST, MOST, STEPS, steps_per_epoch, with_epochs
from harness.config.study import AUTO, StudyConfig


@pytest.mark.parametrize(
    ("train", "epochs"),
    [
        (238, MOST),  # 3 steps an epoch
        (924, 15),  # 14 steps
        (1440, 10),  # 22 steps
        (100_000, FEWEST),
        (10, MOST),  # less than a batch
    ],
)
def test_the_number_of_epochs_follows_from_the_training_images(train: int, epochs: int) -> None:
    study, reason = with_epochs(StudyConfig(epochs="auto"), train)  # type: ignore[arg-type]
    assert study.epochs == epochs
    assert reason is not None
    assert f"Epochs: {epochs} for every trial" in reason
    assert f"{epochs * steps_per_epoch(study, train):,} steps in all" in reason
    if FEWEST < epochs < MOST:
        assert STEPS <= epochs * steps_per_epoch(study, train) < STEPS * 1.2


def test_a_number_in_the_file_stays() -> None:
    study = StudyConfig(epochs=7)
    assert with_epochs(study, 100) == (study, None)


def test_auto_is_written_as_it_is_read() -> None:
    study = StudyConfig(epochs="auto")  # type: ignore[arg-type]
    assert study.epochs == AUTO
    assert study.model_dump(mode="json")["epochs"] == "auto"
    assert StudyConfig.model_validate(study.model_dump(mode="json", by_alias=True)) == study
    assert StudyConfig(epochs=7).model_dump(mode="json")["epochs"] == 7


@pytest.mark.parametrize("value", [0, -1, 10_001, "many", 2.5])
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        StudyConfig(epochs=value)  # type: ignore[arg-type]
