"""What a score costs: the front holds what no trial betters, and the heading is read off it."""

from __future__ import annotations

import dataclasses
import re
import time

import numpy as np
import pandas as pd
import pytest

from harness.analysis.cost_front import Point, front
from harness.analysis.study_data import StudyData
from harness.report import style
from harness.report.sections.costs import cost_section, heading
from tests.stored_study import MakeStudy

A, B = "feature_extraction", "fine_tuning"


def trials(*rows: tuple[str, float, float], objective: str = "balanced_accuracy") -> pd.DataFrame:
    """From (strategy, seconds, score)."""
    table = pd.DataFrame(rows, columns=["strategy", "seconds_alone", "score"])
    table["backbone"], table["state"] = "resnet18", "complete"
    table["unfreeze_depth"] = np.where(table["strategy"] == A, 0, 2)
    table.attrs["objective"] = objective
    return table


def points(*rows: tuple[str, float, float]) -> list[Point]:
    return [Point(*row, ("", "")) for row in rows]


def test_the_front_holds_the_trials_that_none_betters_for_as_few_seconds() -> None:
    table = trials((B, 30, 0.9), (A, 2, 0.6), (A, 2, 0.7), (A, 5, 0.7), (B, 20, 0.65), (B, 9, 0.8), (A, 40, 0.9))
    assert [(p.seconds, p.score) for p in front(table, "balanced_accuracy")] == [(2, 0.7), (9, 0.8), (30, 0.9)]


def test_where_lower_is_better_the_front_goes_down() -> None:
    table = trials((A, 2, 0.9), (A, 4, 1.2), (B, 9, 0.5), (B, 12, 0.6), objective="log_loss")
    assert [(p.seconds, p.score) for p in front(table, "log_loss")] == [(2, 0.9), (9, 0.5)]


def test_points_are_called_by_depth_and_by_backbone_where_there_are_several() -> None:
    table = trials((A, 2, 0.6), (B, 9, 0.8))
    assert [p.names for p in front(table, "accuracy")] == [("", "head only"), ("", "2 stages")]
    table["backbone"], table["unfreeze_depth"] = ["resnet18", "resnet50"], [0, 5]
    assert [p.names for p in front(table, "accuracy")] == [("resnet18", "head only"), ("resnet50", "all stages")]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (
            [(A, 2.0, 0.7), (A, 12.0, 0.766), (B, 50.0, 0.78), (B, 108.0, 0.8)],
            "Feature extraction is on the cost-score front up to 12 s a training; beyond it fine-tuning gains "
            "3.4 points of balanced accuracy for 9.0 times the seconds",
        ),
        (
            [(A, 12.0, 0.795), (B, 108.0, 0.8)],
            "Feature extraction is on the cost-score front up to 12 s a training; beyond it fine-tuning gains "
            "0.5 points of balanced accuracy for 9.0 times the seconds, which counts as equal",
        ),
        ([(A, 3.0, 0.8)], "The cheapest trial also scored best: feature extraction, 80.0 % in 3.0 s"),
        (
            [(B, 3.0, 0.7), (B, 6.0, 0.8)],
            "Only fine-tuning is on the cost-score front: its best trial gains 10.0 points of balanced accuracy over "
            "its cheapest one for 2.0 times the seconds",
        ),
        (
            [(A, 3.0, 0.7), (B, 6.0, 0.8), (A, 9.0, 0.9)],
            "Feature extraction and fine-tuning share the cost-score front, from 3.0 s to 9.0 s a training",
        ),
    ],
    ids=["one turn", "a gain that counts as equal", "one point", "one strategy", "in turns"],
)
def test_the_heading_says_who_is_on_the_front_and_what_more_seconds_gain(
    rows: list[tuple[str, float, float]], told: str
) -> None:
    assert heading(points(*rows), [A, B], "balanced_accuracy", 0.01) == told


def test_a_strategy_alone_is_not_called_the_only_one() -> None:
    told = heading(points((A, 3.0, 0.7), (A, 6.0, 0.705)), [A], "balanced_accuracy", 0.01)
    assert told == (
        "Feature extraction: the best trial gains 0.5 points of balanced accuracy over its cheapest one "
        "for 2.0 times the seconds, which counts as equal"
    )


def with_trials(data: StudyData, table: pd.DataFrame) -> StudyData:
    made = dataclasses.replace(data)
    vars(made)["trials"] = table  # a cached property
    return made


def test_the_section_draws_every_complete_trial_and_tells_the_front(make_study: MakeStudy) -> None:
    data = StudyData.read(make_study())
    section = cost_section(data)
    assert section is not None
    assert section.table is not None
    found = front(data.complete, "balanced_accuracy")
    assert len(found) == len(section.table.rows) > 1
    assert section.pictures[0].svg.count("<use") >= len(data.complete) + len(found)
    assert f"{found[-1].score * 100:.1f} %" in section.pictures[0].alt
    assert section.table.rows[0][0] in section.pictures[0].alt
    assert "differ in other values too" in section.note


def test_a_wide_span_of_seconds_is_drawn_in_the_logarithm(make_study: MakeStudy) -> None:
    data = StudyData.read(make_study(until="search", trials=2))
    narrow = cost_section(with_trials(data, trials((A, 10, 0.6), (B, 90, 0.8))))
    wide = cost_section(with_trials(data, trials((A, 10, 0.6), (B, 900, 0.8))))
    assert narrow is not None
    assert wide is not None
    ticks = [re.findall(r">(\d+)</text>", section.pictures[0].svg) for section in (narrow, wide)]
    assert ticks == [["20", "40", "60", "80"], ["10", "20", "50", "100", "200", "500"]]


def test_the_ends_of_the_front_are_labelled_where_they_stand(make_study: MakeStudy) -> None:
    data = StudyData.read(make_study(until="search", trials=2))
    section = cost_section(with_trials(data, trials((A, 10, 0.6), (A, 11, 0.5), (B, 90, 0.8))))
    assert section is not None
    assert ">head only<" in section.pictures[0].svg
    assert ">2 stages<" in section.pictures[0].svg


def test_costs_are_silent_with_fewer_than_two_complete_trials(make_study: MakeStudy) -> None:
    data = StudyData.read(make_study(until="search", trials=2))
    assert cost_section(with_trials(data, trials((A, 10, 0.6)))) is None
    assert cost_section(with_trials(data, trials((A, 10, 0.6), (B, 0.0, 0.8)))) is None
    assert cost_section(with_trials(data, data.trials.iloc[:0])) is None


def cloud(count: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    seconds = np.exp(rng.normal(3, 1.2, count))
    scores = 0.5 + 0.05 * np.log(seconds) + rng.normal(0, 0.03, count)
    return trials(*((A if s < 20 else B, float(s), float(v)) for s, v in zip(seconds, scores, strict=True)))


def test_ten_thousand_trials_stay_small_and_fast(make_study: MakeStudy) -> None:
    data = StudyData.read(make_study(until="search", trials=2))
    table, start = cloud(10_000), time.perf_counter()
    section = cost_section(with_trials(data, table))
    assert time.perf_counter() - start < 10  # about one
    assert section is not None
    assert section.table is not None
    assert len(section.table.rows) <= 12 < len(front(table, "balanced_accuracy"))
    assert len(section.pictures[0].svg) < 150_000  # 390,000 with marks of many shades, two million as shapes


def test_two_strategies_that_are_dense_only_together_are_stored_as_pixels(make_study: MakeStudy) -> None:
    data, table = StudyData.read(make_study(until="search", trials=2)), cloud(2800)
    assert table["strategy"].value_counts().max() < style.DENSE
    section = cost_section(with_trials(data, table))
    assert section is not None
    assert section.pictures[0].svg.count("<use") < 100
