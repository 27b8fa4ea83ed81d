"""summary.json keeps its schema, at every stage of a study."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness.analysis.study_data import StudyData
from harness.results.event_types import VerdictReached
from harness.results.events import EventLog
from harness.results.metrics import score
from harness.results.paths import StudyFolder

MakeStudy = Callable[..., StudyFolder]
STAGES: list[dict[str, Any]] = [
    {"until": "search", "done": 0, "session": False},
    {"until": "search", "done": 3, "session": False},
    {"until": "confirmation", "session": False},
    {"until": "scored"},
    {"until": "end"},
    {"state": "diverged"},
    {"strategies": ("fine_tuning",)},
    {"strategies": ("feature_extraction", "fine_tuning", "from_scratch")},
    {"study": {"objective": "auroc"}, "groups": None},
]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: "-".join(f"{k}={v}" for k, v in stage.items()))
def test_the_schema_holds_at_every_stage(make_study: MakeStudy, stage: dict[str, Any]) -> None:
    found = json.loads(json.dumps(StudyData.read(make_study(**stage)).summary, allow_nan=False))
    assert found["schema"] == 1
    assert found["study"] == "microscopy"
    assert set(found) >= {
        *("objective", "data", "verdict", "comparisons", "strategies", "recommendation", "seconds_spent", "environment")
    }
    assert (found["verdict"] is None) == bool(found["verdict_reason"])
    for strategy in found["strategies"].values():
        assert set(strategy) >= {
            *("trials", "best_validation", "test_mean", "test_ci95", "seconds_alone", "best_config")
        }
        assert set(strategy["trials"]) == {"complete", "pruned", "diverged", "out_of_memory", "failed"}
    if found["verdict"]:
        assert set(found["verdict"]) >= {
            *("outcome", "difference", "ci95", "probability_fine_tuning_better", "equivalence", "seeds"),
            *("test_looks", "sentence"),
        }
        assert found["verdict"]["outcome"] in ("fine_tuning", "feature_extraction", "equal", "undecided")


def test_the_test_score_is_the_mean_over_seeds_inside_its_interval(make_study: MakeStudy) -> None:
    folder = make_study()
    found = StudyData.read(folder).summary["strategies"]["fine_tuning"]
    files = sorted(folder.predictions.glob("fine_tuning-*.npz"))
    keys = {path.name.split("-")[1] for path in files}
    means = []
    for key in keys:
        stored = [np.load(path) for path in files if key in path.name]
        means.append(np.mean([score("balanced_accuracy", file["probabilities"], file["labels"]) for file in stored]))
    assert any(found["test_mean"] == pytest.approx(mean) for mean in means)
    low, high = found["test_ci95"]
    assert 0 <= low < found["test_mean"] < high <= 1


def test_seconds_alone_is_one_training_of_the_winner(make_study: MakeStudy) -> None:
    found = StudyData.read(make_study()).summary["strategies"]
    assert found["feature_extraction"]["seconds_alone"] < found["fine_tuning"]["seconds_alone"]
    assert found["fine_tuning"]["seconds_alone"] < found["fine_tuning"]["search_seconds_alone"]


def test_the_verdict_of_the_log_is_kept(make_study: MakeStudy) -> None:
    folder = make_study()
    log = EventLog(folder.events)
    [reached] = log.of(VerdictReached)
    log.append(dataclasses.replace(reached, verdict={**(reached.verdict or {}), "difference": 0.123}))
    log.close()
    found = StudyData.read(folder).summary
    assert found["verdict"]["difference"] == 0.123
    assert "better by 12.3 points" in found["verdict"]["sentence"]  # made from the stored values
    assert found["recommendation"]["model"] == "models:/m-4c1f"


def test_no_absolute_path_and_no_password_is_told(make_study: MakeStudy) -> None:
    folder = make_study(
        card={"source": {"folder": "/home/someone/cells"}, "notes": ["read from C:\\Users\\someone\\x.csv"]},
        study={"tracking_uri": "https://someone:secret@host/mlflow"},
    )
    text = json.dumps(StudyData.read(folder).summary)
    assert "someone" not in text
    assert "cells" in text
