"""The batch size of a study that names none."""

from __future__ import annotations

import pytest

from harness.config.auto_batch import fitted_batch_size, with_batch_size
from harness.config.load import parse
from harness.config.space import space


@pytest.mark.parametrize(
    ("images", "size"), [(5, 2), (12, 4), (36, 8), (150, 8), (256, 16), (720, 32), (1024, 64), (100_000, 64)]
)
def test_a_batch_is_a_power_of_two_that_leaves_several_steps_an_epoch(images: int, size: int) -> None:
    assert fitted_batch_size(images) == size
    assert images // size >= 2


def test_a_study_that_names_no_batch_size_gets_one_that_fits_and_says_so() -> None:
    study, sentence = with_batch_size(parse({}, "study"), 36)
    assert [space(study, strategy).default().batch_size for strategy in study.strategies] == [8, 8]
    assert sentence is not None and "8 instead of 64" in sentence and "36 training images" in sentence


@pytest.mark.parametrize("document", [{"batch_size": 32}, {"search": {"batch_size": [16, 32]}}])
def test_a_batch_size_in_the_file_stays(document: dict[str, object]) -> None:
    study = parse(document, "study")
    assert with_batch_size(study, 20) == (study, None)


def test_enough_images_keep_the_usual_default_without_a_word() -> None:
    study = parse({}, "study")
    assert with_batch_size(study, 2000) == (study, None)
