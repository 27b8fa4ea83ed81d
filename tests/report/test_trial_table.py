"""The rows of the trials say what the log says, in words, and whatever it says stays text."""

from __future__ import annotations

import dataclasses
import gc
import re
from collections.abc import Callable
from html import unescape

import pytest

from harness.analysis.study_data import StudyData
from harness.errors import HarnessError
from harness.report.page import write_report
from harness.report.sections.trial_table import trial_table
from harness.results.event_types import TrialFinished
from harness.results.events import EventLog
from harness.results.paths import StudyFolder

MakeStudy = Callable[..., StudyFolder]
PAYLOAD = "<img src=x onerror=alert(1)>&'\""


def rows_of(folder: StudyFolder) -> list[list[str]]:
    """The text of each cell, row by row."""
    rows = trial_table(StudyData.read(folder))["rows"].split("\n")
    return [[unescape(cell) for cell in re.split(r"<td[^>]*>", row)[1:]] for row in rows]


def test_a_row_tells_a_trial_under_the_headings(make_study: MakeStudy) -> None:
    folder = make_study(until="search")
    data = StudyData.read(folder)
    heads = [label for label, _ in trial_table(data)["columns"]]
    assert heads == [
        *("trial", "strategy", "state", "balanced accuracy (validation)", "backbone", "unfreeze depth (stages)"),
        *("head learning rate", "backbone learning rate", "BatchNorm", "epochs", "device seconds", "note"),
    ]
    rows = rows_of(folder)
    assert len(rows) == len(data.records) == 16
    for row, record in zip(rows, data.records, strict=True):
        told = dict(zip(heads, row, strict=True))
        assert told["trial"] == str(record.slot)
        assert told["strategy"] == {"feature_extraction": "feature extraction"}.get(record.strategy, "fine-tuning")
        assert told["state"].removesuffix(' <abbr title="best validation score of its strategy">best</abbr>') == (
            record.state
        )
        score = "–" if record.score is None else f"{record.score * 100:.1f} %"
        assert told["balanced accuracy (validation)"] == score
        assert told["backbone"] == record.config.backbone
        assert told["unfreeze depth (stages)"] == str(record.config.unfreeze_depth)
        assert (told["backbone learning rate"] == "–") == (record.config.backbone_lr is None)
        assert float(told["head learning rate"]) == pytest.approx(record.config.head_lr, rel=0.05)
        assert told["epochs"] == str(len(record.epochs))
        assert told["device seconds"] == f"{record.seconds_alone:.1f}"
        assert ("see …/trial.log" in told["note"]) == (record.state != "complete")


def test_the_best_trial_of_each_strategy_is_marked(make_study: MakeStudy) -> None:
    folder = make_study(until="search")
    scored = [record for record in StudyData.read(folder).records if record.state == "complete"]
    best = [
        max(record.score or 0.0 for record in scored if record.strategy == name)
        for name in ("feature_extraction", "fine_tuning")
    ]
    marked = [row for row in rows_of(folder) if "<abbr" in row[2]]
    assert sorted(row[3] for row in marked) == sorted(f"{score * 100:.1f} %" for score in best)


def test_what_a_trial_says_of_itself_stays_text(make_study: MakeStudy) -> None:
    folder = make_study(until="search", vary={"backbone": ("resnet18", PAYLOAD)}, session=False)
    log = EventLog(folder.events)
    first = log.of(TrialFinished)[0].record
    log.append(TrialFinished(dataclasses.replace(first, state="failed", reason=PAYLOAD, warnings=(PAYLOAD,))))
    log.close()
    page = write_report(folder).read_text(encoding="utf-8")
    assert "<img src=x" not in page
    rows = rows_of(folder)
    assert rows[0][-1] == f"{PAYLOAD}; {PAYLOAD}"
    assert {row[4] for row in rows} == {"resnet18", PAYLOAD}


def test_a_study_without_a_trial_has_no_rows(make_study: MakeStudy) -> None:
    assert trial_table(StudyData.read(make_study(until="search", done=0)))["rows"] == ""


def test_the_collector_of_circles_runs_again_after_a_report(make_study: MakeStudy) -> None:
    folder = make_study(until="search", done=1)
    write_report(folder)
    assert gc.isenabled()
    folder.study_json.unlink()
    folder.events.unlink()
    with pytest.raises(HarnessError, match="is damaged"):
        write_report(folder)
    assert gc.isenabled()
