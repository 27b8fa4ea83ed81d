"""The page judges the winners' probabilities: too sure, too cautious, or about right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from harness.analysis.statistics import estimate
from harness.analysis.study_data import StudyData
from harness.analysis.test_predictions import TestPredictions
from harness.report.sections.reliability import gap, reliability_heading, reliability_section
from harness.results.metrics import score
from harness.results.paths import StudyFolder

MakeStudy = Callable[..., StudyFolder]


def side(strategy: str, sharpness: float) -> TestPredictions:
    """Answers drawn from probabilities, which are then sharpened by a power: 1 is calibrated."""
    rng = np.random.default_rng(0)
    true = rng.dirichlet(np.ones(3), 4000)
    labels = (true.cumsum(axis=1) > rng.random((4000, 1))).argmax(axis=1)
    said = true**sharpness / (true**sharpness).sum(axis=1, keepdims=True)
    each = np.stack([said, said]).astype(np.float32)
    return TestPredictions(strategy, "key", (0, 1), each, labels, None, np.arange(4000), ())


@pytest.mark.parametrize(
    ("sharpness", "sign", "words"), [(1.0, 0, "about right"), (4.0, 1, "too sure"), (0.4, -1, "too cautious")]
)
def test_confidence_beyond_the_share_of_right_answers_is_too_sure(sharpness: float, sign: int, words: str) -> None:
    winner = side("fine_tuning", sharpness)
    assert np.sign(round(gap(winner), 1)) == sign
    found = estimate(winner.probabilities, winner.labels, None, "calibration_error")
    assert f"Fine-tuning is {words} (calibration error " in reliability_heading(
        {"fine_tuning": winner}, {"fine_tuning": found}
    )


def test_the_table_gives_the_error_of_both_winners_with_its_interval(make_study: MakeStudy) -> None:
    data = StudyData.read(make_study())
    section = reliability_section(data)
    assert section is not None and section.table is not None
    for row, winner in zip(section.table.rows, data.winners.values(), strict=True):
        mean = np.mean([score("calibration_error", p, winner.labels) for p in winner.probabilities])
        assert row[1] == f"{mean:.3f}"
        assert " to " in row[2]
    assert "Share of right answers against confidence" in section.pictures[0].alt


def test_without_scored_winners_there_is_no_section(make_study: MakeStudy) -> None:
    assert reliability_section(StudyData.read(make_study(until="confirmation"))) is None
