"""A new metric: its row of the table and its name among the objectives, used from the study file to the page."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from sklearn.metrics import cohen_kappa_score

from harness.analysis import tables, verdict_text
from harness.analysis.study_data import StudyData
from harness.analysis.verdict import conclude
from harness.config import study as study_module
from harness.config.load import load_study
from harness.config.parameters import default_values
from harness.config.trial import Strategy, TrialConfig
from harness.errors import ConfigError
from harness.report.page import write_report
from harness.results.event_types import SessionEnded, SessionStarted, StudyCreated, TestScored, TrialFinished
from harness.results.events import EventLog
from harness.results.metrics import COUNTS, METRICS, Floats, Metric, all_metrics
from harness.results.paths import StudyFolder
from harness.results.records import EpochRecord, TrialRecord
from harness.results.trial_id import TrialId
from harness.training.trial import TrialJob

GAINS: dict[Strategy, float] = {"feature_extraction": 0.5, "fine_tuning": 2.5}  # logits of the true class


def kappa(sums: Floats) -> Floats:
    """Cohen's kappa of the predictions with the labels."""
    right, true, predicted = np.split(sums, 3, axis=1)
    n = true.sum(axis=1)
    by_chance = (true * predicted).sum(axis=1) / n**2
    agreement: Floats = (right.sum(axis=1) / n - by_chance) / (1 - by_chance)
    return agreement


class TestANewMetric:
    """One row of METRICS, and the name in OBJECTIVES: two files of the package."""

    @pytest.fixture(autouse=True)
    def added(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        row = Metric("Cohen's kappa", "maximize", COUNTS, kappa, lambda shares: 0.0, "kappa points", (-1.0, 1.0))
        monkeypatch.setitem(METRICS, "kappa", row)
        monkeypatch.setattr(study_module, "OBJECTIVES", (*study_module.OBJECTIVES, "kappa"))
        # Made from METRICS as it is imported, so a row of the source stands there already.
        monkeypatch.setattr(tables, "EPOCH_COLUMNS", [*tables.EPOCH_COLUMNS, "validation_kappa"])
        monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "runs"))
        monkeypatch.setenv("HARNESS_REPORTS", str(tmp_path / "reports"))

    def test_it_is_judged_by_its_own_formula_and_heads_the_page(self, tmp_path: Path) -> None:
        folder, labels = finished_study(tmp_path, "kappa")
        data = StudyData.read(folder)
        assert data.study.objective == "kappa"
        expected = [
            np.mean([cohen_kappa_score(labels, p.argmax(axis=1)) for p in data.winners[strategy].probabilities])
            for strategy in ("feature_extraction", "fine_tuning")
        ]
        verdict = conclude(data.state, data.winners, data.study)["verdict"]
        assert verdict["difference"] == pytest.approx(expected[1] - expected[0])
        low, high = verdict["ci95"]
        assert 0 < low < verdict["difference"] < high
        assert verdict["outcome"] == "fine_tuning"
        size = f"{verdict['difference']:.3f}"
        said = verdict_text.sentence(verdict, "kappa")
        assert said.startswith(f"Fine-tuning is better by {size} kappa points of Cohen's kappa (95 % interval ")

        page = write_report(folder).read_text(encoding="utf-8")
        assert said.replace("'", "&#39;") in page
        summary = json.loads((folder.report / "summary.json").read_text(encoding="utf-8"))
        assert summary["strategies"]["fine_tuning"]["test"]["kappa"] == pytest.approx(expected[1])
        scores = f"Fine-tuning {expected[1]:.3f} and feature extraction {expected[0]:.3f}"
        assert f">{scores} Cohen&#39;s kappa on the test split</h2>" in page

    def test_a_study_file_that_misspells_it_is_told_all_names(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"objective: must be one of .*log_loss, kappa, but got 'kapa'"):
            study_file(tmp_path, "kapa")


def study_file(folder: Path, objective: str) -> study_module.StudyConfig:
    """The study of a file with this objective."""
    written = {"objective": objective, "trials": 1, "epochs": 1, "search": {"backbone": "resnet18"}}
    written["confirmation"] = {"seeds": 3}
    (folder / "small.yaml").write_text(yaml.safe_dump(written), encoding="utf-8")
    return load_study("small", studies=folder).study


def finished_study(root: Path, objective: str) -> tuple[StudyFolder, np.ndarray[Any, np.dtype[np.int64]]]:
    """The log and predictions of a small study made by hand, up to the scores on test, and its test labels."""
    study, folder = study_file(root, objective), StudyFolder("small")
    folder.predictions.mkdir(parents=True)
    resolved = study.model_dump(mode="json", by_alias=True)
    folder.study_json.write_text(json.dumps({"study": resolved, "fingerprint": {}}), encoding="utf-8")
    rng, labels = np.random.default_rng(0), np.arange(300) % 3
    log = EventLog(folder.events)
    log.append(StudyCreated(resolved, fingerprint={}))
    log.append(SessionStarted(environment={}, resumed=False))
    strategy: Strategy
    for strategy, gain in GAINS.items():
        chosen: Any = {**default_values(strategy), "strategy": strategy, "backbone": "resnet18", "epochs": 1}
        setup = TrialConfig(**chosen)
        for seed in range(3):
            logits = rng.normal(size=(300, 3)) + gain * np.eye(3)[labels]
            probabilities = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
            scores = all_metrics(probabilities, labels)
            name = str(TrialId("confirmation", strategy, seed, setup.key()))
            record = TrialRecord(
                job=TrialJob(name, "confirmation", strategy, seed, setup, seed, "search"),
                state="complete",
                reason=None,
                epochs=(EpochRecord(1, 1.0, {"loss": scores["log_loss"], **scores}, 1e-3, None, 1.0),),
                best_epoch=1,
                score=scores[objective],
                seconds_alone=2.0,
                trainable_parameters=10,
                total_parameters=100,
                device="cpu",
                started_at="2026-11-21T09:00:00.000+00:00",
            )
            if seed == 0:
                searched = dataclasses.replace(record.job, trial_id=f"{strategy}/0", kind="search")
                log.append(TrialFinished(dataclasses.replace(record, job=searched)))
            log.append(TrialFinished(record))
            file = f"{strategy}-{seed}.npz"
            rows = np.arange(300)
            arrays = {"probabilities": probabilities, "labels": labels, "rows": rows, "groups": rows.astype(str)}
            np.savez(folder.predictions / file, **arrays)
            log.append(TestScored(1, strategy, "winner+default", setup.key(), seed, scores, file))
    log.append(SessionEnded("finished", seconds=9.0))
    log.close()
    return folder, labels
