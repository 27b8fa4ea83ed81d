"""What was tried after the verdict, read back: differences that are paired, headings that say what was found."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness.analysis.study_data import StudyData
from harness.report.page import render, write_report
from harness.report.sections.controlled import controlled_heading, controlled_sections
from harness.report.sections.data_sizes import sizes_heading
from harness.report.sections.shifts import shifts_heading
from harness.results.event_types import ControlledChange, ControlledSelected, Explored, TrialFinished
from harness.results.events import EventLog
from harness.results.metrics import all_metrics
from harness.results.paths import StudyFolder
from harness.results.records import TrialRecord
from harness.results.study_state import of_kind
from harness.results.trial_id import TrialId

MakeStudy = Callable[..., StudyFolder]


def change(folder: StudyFolder, effects: dict[str, float], spread: float = 0.002, seeds: int = 3) -> StudyData:
    """Log a change of the fine-tuning winner for each BatchNorm policy named, with this effect on validation."""
    data = StudyData.read(folder)
    winner = data.winners["fine_tuning"]
    log, rng = EventLog(folder.events), np.random.default_rng(0)
    configs = {policy: dataclasses.replace(winner.runs[0].config, batchnorm=policy) for policy in effects}
    entries = tuple(ControlledChange("batchnorm", policy, config) for policy, config in configs.items())
    log.append(ControlledSelected(seeds, {"fine_tuning": entries}))
    for policy, config in configs.items():
        for run in winner.runs[:seeds]:
            name = TrialId("controlled", "fine_tuning", run.slot, config.key())
            job = dataclasses.replace(run.job, trial_id=str(name), kind="controlled", config=config)
            score = (run.score or 0.0) + effects[policy] + float(rng.normal(0, spread))
            log.append(TrialFinished(dataclasses.replace(run, job=job, score=score)))
    log.close()
    return StudyData.read(folder)


def explore(folder: StudyFolder, what: Any, values: dict[Any, dict[str, float]], images: int = 200) -> StudyData:
    """Log answers of the winners under each condition; the number is the share of answers that turn wrong."""
    data = StudyData.read(folder)
    log, rng = EventLog(folder.events), np.random.default_rng(1)
    for value, wrong in values.items():
        for strategy, winner in data.winners.items():
            for row, seed in enumerate(winner.seeds):
                probabilities = winner.probabilities[row].copy()
                worse = rng.random(len(probabilities)) < wrong[strategy]
                probabilities[worse] = np.roll(np.eye(probabilities.shape[1])[winner.labels[worse]], 1, axis=1)
                name = f"{strategy}-{winner.key}-{seed}-{value}.npz"
                groups = winner.groups if winner.groups is not None else winner.rows.astype(str)
                np.savez(
                    folder.predictions / name,
                    probabilities=probabilities,
                    labels=winner.labels,
                    groups=groups,
                    rows=winner.rows,
                )
                about = (
                    {"fraction": value, "train_images": int(value * images)}
                    if what == "data_size"
                    else {"shift": value}
                )
                metrics = all_metrics(probabilities, winner.labels)
                log.append(Explored(what, strategy, winner.key, seed, metrics, predictions=name, **about))
    log.close()
    return StudyData.read(folder)


def test_a_costly_change_is_clear_and_a_harmless_one_is_not(make_study: MakeStudy) -> None:
    data = change(make_study(), {"frozen": -0.08, "recalibrated": 0.0})
    found = data.changed
    assert [(one.value, one.clear) for one in found] == [("recalibrated", False), ("frozen", True)]
    assert found[1].mean == pytest.approx(-0.08, abs=0.005)
    assert found[1].ci95[0] < found[1].mean < found[1].ci95[1] < 0
    winner = {run.slot: run.score for run in data.winners["fine_tuning"].runs}
    runs = [r for r in of_kind(data.records, "controlled") if r.config.batchnorm == "frozen"]
    assert found[1].differences == pytest.approx([(run.score or 0) - (winner[run.slot] or 0) for run in runs])
    heading = controlled_heading(found, "balanced_accuracy")
    assert "BatchNorm frozen instead of" in heading
    assert "would have cost" in heading
    assert "; 1 other choice makes no clear difference" in heading


def test_changes_within_the_luck_of_seeds_are_not_clear(make_study: MakeStudy) -> None:
    data = change(make_study(), {"frozen": -0.01, "recalibrated": 0.005}, spread=0.03)
    found = data.changed
    assert not any(one.clear for one in found)
    assert "none of 2 other choices makes a clear difference" in controlled_heading(found, "balanced_accuracy")


def test_a_better_choice_that_the_search_missed_is_said(make_study: MakeStudy) -> None:
    found = change(make_study(), {"frozen": 0.07}).changed
    assert "the search missed a better choice" in controlled_heading(found, "balanced_accuracy")


def test_a_change_that_diverged_is_told_and_not_scored(make_study: MakeStudy) -> None:
    folder = make_study()
    data = change(folder, {"frozen": -0.05, "recalibrated": 0.0})
    last = [r for r in of_kind(data.records, "controlled") if r.config.batchnorm == "frozen"][-1]
    log = EventLog(folder.events)
    log.append(TrialFinished(dataclasses.replace(last, state="diverged", score=None)))
    log.close()
    data = StudyData.read(folder)
    one = next(one for one in data.changed if one.value == "frozen")
    assert not one.completed
    assert "diverged" in one.ended
    section = next(s for s in controlled_sections(data) if s.key == "controlled-fine_tuning")
    assert section.table is not None
    assert "diverged" in section.table.rows[0][1]


def test_where_fine_tuning_starts_to_pay_is_read_off_the_intervals(make_study: MakeStudy) -> None:
    folder = make_study(
        skill={"fine_tuning": 3.2, "feature_extraction": 1.2},
        seeds=4,
        images=600,
        groups=None,
        study={"data_sizes": [0.25, 0.5, 1.0]},
    )
    data = explore(
        folder,
        "data_size",
        {0.25: {"feature_extraction": 0.0, "fine_tuning": 0.5}, 0.5: {"feature_extraction": 0.0, "fine_tuning": 0.02}},
    )
    points = data.sizes
    assert [point.fraction for point in points] == [0.25, 0.5, 1.0]
    assert points[0].train_images == {"feature_extraction": 50, "fine_tuning": 50}
    pairs = [point.pair for point in points]
    assert [pair.outcome for pair in pairs if pair] == ["worse", "better", "better"]
    verdict = data.summary["verdict"]
    assert pairs[-1] is not None
    assert pairs[-1].difference == pytest.approx(verdict["difference"])
    assert sizes_heading(points).startswith("Fine-tuning clearly pays from 100 training images on; with 50")


def test_shifts_are_judged_against_each_other_on_the_same_images(make_study: MakeStudy) -> None:
    folder = make_study(
        skill={"fine_tuning": 2.6, "feature_extraction": 2.4},
        seeds=4,
        images=600,
        groups=None,
        study={"shifts": ["blur", "noise", "jpeg"]},
    )
    data = explore(
        folder,
        "shift",
        {
            "blur": {"feature_extraction": 0.02, "fine_tuning": 0.5},
            "noise": {"feature_extraction": 0.02, "fine_tuning": 0.02},
            "jpeg": {"feature_extraction": 0.02, "fine_tuning": 0.5},
        },
    )
    points = data.shifts
    assert [point.name for point in points] == ["", "blur", "noise", "jpeg"]
    assert points[1].pair is not None
    assert points[1].pair.outcome == "worse"
    assert shifts_heading(points, "balanced_accuracy") == (
        "On shifted images feature extraction is better under blur and JPEG (2 of 3)"
    )


def test_what_belongs_to_an_earlier_winner_is_left_out(make_study: MakeStudy) -> None:
    folder = make_study(study={"shifts": ["blur"]})
    log = EventLog(folder.events)
    log.append(Explored("shift", "fine_tuning", "0" * 16, 0, metrics={}, predictions="gone.npz", shift="blur"))
    log.close()
    assert StudyData.read(folder).shifts == []


def test_the_page_shows_them_as_exploratory_and_is_silent_without_them(make_study: MakeStudy) -> None:
    folder = make_study(study={"shifts": ["blur"], "data_sizes": [0.5]})
    before = render(StudyData.read(folder))
    assert "Exploratory" not in before
    explore(folder, "shift", {"blur": {"feature_extraction": 0.1, "fine_tuning": 0.1}})
    explore(folder, "data_size", {0.5: {"feature_extraction": 0.1, "fine_tuning": 0.3}})
    page = render(change(folder, {"frozen": -0.08}))
    assert page.count("Exploratory: made after the verdict") == 3
    for key in ("controlled-fine_tuning", "data-sizes", "shifts"):
        assert f'id="{key}"' in page
        assert f'id="{key}"' not in before


def test_machines_can_read_it_too(make_study: MakeStudy) -> None:
    folder = make_study(study={"shifts": ["blur"], "data_sizes": [0.5]})
    explore(folder, "shift", {"blur": {"feature_extraction": 0.1, "fine_tuning": 0.1}})
    explore(folder, "data_size", {0.5: {"feature_extraction": 0.1, "fine_tuning": 0.3}})
    change(folder, {"frozen": -0.08})
    write_report(folder)
    found = json.loads((folder.report / "summary.json").read_text())["explored"]
    assert [(one["parameter"], one["to"], one["clear"]) for one in found["controlled"]] == [
        ("batchnorm", "frozen", True)
    ]
    assert found["controlled"][0]["difference"] == pytest.approx(-0.08, abs=0.01)
    assert [point["fraction"] for point in found["data_sizes"]] == [0.5, 1.0]
    assert [point["shift"] for point in found["shifts"]] == [None, "blur"]
    assert found["shifts"][1]["test"]["fine_tuning"]["mean"] < found["shifts"][0]["test"]["fine_tuning"]["mean"]


def test_the_verdict_does_not_move(make_study: MakeStudy) -> None:
    folder = make_study(study={"shifts": ["blur"]})
    before = StudyData.read(folder).summary
    explore(folder, "shift", {"blur": {"feature_extraction": 0.9, "fine_tuning": 0.0}})
    after = change(folder, {"frozen": 0.3}).summary
    assert before["verdict"] == after["verdict"]
    assert before["strategies"] == after["strategies"]


def test_records_go_to_json_and_back_with_their_kind(make_study: MakeStudy) -> None:
    data = change(make_study(), {"frozen": -0.1})
    found = of_kind(data.records, "controlled")
    assert len(found) == 3
    assert all(TrialRecord.from_json(record.to_json()) == record for record in found)
