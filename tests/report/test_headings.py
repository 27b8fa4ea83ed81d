"""Headings say what the data show, and survive data that show nothing."""

from __future__ import annotations

import pandas as pd
import pytest

from harness.analysis import wording
from harness.report.sections import hyperparameters


def trials(scores: list[float | None]) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "strategy": "feature_extraction",
            "score": scores,
            "head_lr": [10.0**-n for n in range(1, len(scores) + 1)],
            "backbone_lr": None,
        }
    )
    table.attrs["objective"] = "balanced_accuracy"
    return table


def test_the_best_quarter_s_rates_are_told() -> None:
    told = hyperparameters.rate_heading(trials([0.9, 0.9, *[0.1] * 6]))
    assert told is not None
    assert told.endswith(f"feature extraction near 3e{wording.MINUS}2")


@pytest.mark.parametrize("scores", [[0.5] * 8, [0.5] * 7 + [None]], ids=["all equal", "one without a score"])
def test_where_all_scores_are_equal_no_trial_is_better_than_the_others(scores: list[float | None]) -> None:
    assert "feature extraction near" in (hyperparameters.rate_heading(trials(scores)) or "")


def test_of_too_few_trials_no_rate_is_told() -> None:
    assert hyperparameters.rate_heading(trials([0.9, 0.5, 0.1])) is None
