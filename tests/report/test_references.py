"""The references stand beside the winners: in summary.json, under the verdict, and in a section of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.analysis.study_data import StudyData
from harness.report.page import write_report
from harness.report.sections.references import reference_section
from harness.results.event_types import ReferenceScored
from harness.results.events import EventLog
from harness.results.metrics import METRICS
from harness.results.paths import StudyFolder

MakeStudy = Callable[..., StudyFolder]


def with_neighbours(folder: StudyFolder, **scores: list[float]) -> StudyData:
    """Add the objective's score of each seed, by backbone."""
    log = EventLog(folder.events)
    for backbone, each in scores.items():
        for index, value in enumerate(each):
            metrics = dict.fromkeys(METRICS, value)
            log.append(ReferenceScored(backbone, index, (1, 5, 10)[index % 3], value + 0.01, metrics))
    log.close()
    return StudyData.read(folder)


def rows(data: StudyData) -> dict[str, list[str]]:
    section = reference_section(data)
    assert section is not None and section.table is not None
    return {row[0]: row[1:] for row in section.table.rows}


def test_the_summary_gives_means_over_seeds_the_best_backbone_first(make_study: MakeStudy) -> None:
    data = with_neighbours(make_study(), resnet18=[0.2, 0.3, 0.1], mobilenet_v3_small=[0.4, 0.4, 0.1])
    found = data.summary["references"]
    assert [each["backbone"] for each in found["neighbours"]] == ["mobilenet_v3_small", "resnet18"]
    first = found["neighbours"][0]
    assert (first["test_mean"], first["validation_mean"]) == (pytest.approx(0.3), pytest.approx(0.31))
    assert (first["seeds"], first["numbers"]) == (3, [1, 5, 10])
    assert found["guessing"] == pytest.approx(1 / 6)


def test_where_less_is_better_the_lowest_comes_first(make_study: MakeStudy) -> None:
    folder = make_study(study={"objective": "log_loss"})
    data = with_neighbours(folder, resnet18=[2.0] * 3, mobilenet_v3_small=[1.5] * 3)
    found = data.summary["references"]
    assert [each["backbone"] for each in found["neighbours"]] == ["mobilenet_v3_small", "resnet18"]
    assert found["most_frequent_class"] is None  # an answer in words has no log-loss


def test_the_most_frequent_class_is_that_of_the_training_images(make_study: MakeStudy) -> None:
    classes = [{"name": n, "count": 9, "train": t, "validation": 1, "test": 1} for n, t in (("a", 2), ("b", 7))]
    folder = make_study(classes=("a", "b"), images=90, study={"objective": "accuracy"}, card={"classes": classes})
    data = with_neighbours(folder, resnet18=[0.5] * 3)
    labels: Any = next(iter(data.winners.values())).labels
    assert data.summary["references"]["most_frequent_class"] == pytest.approx(np.mean(labels == 1))


def test_the_table_holds_everyone_in_the_order_of_the_scores(make_study: MakeStudy) -> None:
    data = with_neighbours(make_study(), resnet18=[0.3] * 3)
    found = rows(data)
    assert found["Nearest neighbours on resnet18"] == ["30.0 %", "1 to 10"]
    assert found["The best guess"][0] == "16.7 %"
    assert list(found)[:2] == ["Fine-tuning, its winner", "Feature extraction, its winner"]
    shown = [float(row[0].rstrip(" %")) for row in found.values()]
    assert shown == sorted(shown, reverse=True)


def test_a_winner_that_is_no_better_is_named(make_study: MakeStudy) -> None:
    section = reference_section(with_neighbours(make_study(), resnet18=[0.99] * 3))
    assert section is not None
    assert section.heading.endswith("and the winners of feature extraction and fine-tuning are no better")


def test_a_winner_that_is_better_is_not(make_study: MakeStudy) -> None:
    section = reference_section(with_neighbours(make_study(), resnet18=[0.2] * 3))
    assert section is not None
    assert section.heading.endswith("reach 20.0 %, which is worse than both winners")


def test_the_answer_says_what_guessing_and_neighbours_give(make_study: MakeStudy) -> None:
    folder = make_study()
    with_neighbours(folder, resnet18=[0.3] * 3)
    page = " ".join(Path(write_report(folder)).read_text().split())
    assert "guessing gives 16.7 %, and nearest neighbours on the frozen features of resnet18" in page


def test_log_loss_is_written_in_its_own_unit_and_the_lowest_comes_first(make_study: MakeStudy) -> None:
    data = with_neighbours(make_study(study={"objective": "log_loss"}), resnet18=[9.0] * 3)
    found = rows(data)
    assert found["Nearest neighbours on resnet18"][0] == "9.000"
    assert "Always the most frequent class" not in found
    shown = [float(row[0]) for row in found.values()]
    assert shown == sorted(shown)
    section = reference_section(data)
    assert section is not None
    assert section.heading.endswith("reach 9.000, which is worse than both winners")


@pytest.mark.parametrize("until", ["search", "confirmation"])
def test_without_winners_there_is_no_section(make_study: MakeStudy, until: str) -> None:
    assert reference_section(StudyData.read(make_study(until=until))) is None
