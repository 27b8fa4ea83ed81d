"""Recall by class: its intervals count seeds and groups, and a heading needs a clear difference."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.analysis import class_recall
from harness.analysis.class_recall import most_apart, recalls
from harness.analysis.statistics import difference, estimate
from harness.analysis.study_data import StudyData
from harness.analysis.test_predictions import TestPredictions
from harness.report.sections.classes import class_section, heading
from tests.stored_study import HOSTILE, MakeStudy

A, B = "feature_extraction", "fine_tuning"


def side(
    strategy: str, answers: NDArray[np.int64], labels: NDArray[np.int64], groups: list[str] | None = None
) -> TestPredictions:
    """A winner that gave these answers (seeds, images)."""
    probabilities = np.eye(int(max(answers.max(), labels.max())) + 1, dtype=np.float32)[answers]
    named = None if groups is None else np.array(groups)
    rows = np.arange(labels.size)
    return TestPredictions(strategy, "key", tuple(range(len(answers))), probabilities, labels, named, rows, ())


def right_in(share: float, labels: NDArray[np.int64], rng: np.random.Generator, seeds: int = 3) -> NDArray[np.int64]:
    shape = (seeds, labels.size)
    return np.where(rng.random(shape) < share, labels, (labels + 1) % (int(labels.max()) + 1))


def test_the_recall_of_a_class_is_the_share_of_its_images_that_was_recognised() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    a = np.array([[0, 0, 0, 1, 0, 1], [0, 0, 1, 1, 0, 1]])
    b = np.array([[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 1]])
    found = {one.name: one for one in recalls(side(A, a, labels), side(B, b, labels), ["x", "y"])}
    assert (found["x"].images, found["x"].a.mean, found["x"].b.mean) == (4, 0.625, 1.0)
    assert (found["y"].images, found["y"].a.mean, found["y"].b.mean, found["y"].gain.mean) == (2, 0.5, 0.75, 0.25)


def test_the_interval_of_a_recall_is_that_of_the_accuracy_of_its_images() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(240) % 3
    groups = [f"slide{i // 10}" for i in range(240)]
    a, b = right_in(0.6, labels, rng), right_in(0.8, labels, rng)
    one = next(r for r in recalls(side(A, a, labels, groups), side(B, b, labels, groups), "xyz") if r.name == "y")
    own = labels == 1
    slides = np.array(groups)[own]
    alone = estimate(b[:, own], labels[own], slides, "accuracy")
    assert one.b.ci95 == pytest.approx(alone.interval())
    gain = difference(a[:, own], b[:, own], labels[own], slides, "accuracy")
    assert one.gain.ci95 == pytest.approx(gain.interval())
    assert one.p_value == pytest.approx(gain.p_value)


def test_groups_that_answer_alike_make_a_recall_less_sure() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 100)
    of_slide = np.repeat(rng.random(20) < 0.6, 10)
    a = np.where(of_slide, labels, 1 - labels)[None].repeat(3, axis=0)
    slides = [f"slide{i // 10}" for i in range(200)]
    alone, grouped = (recalls(side(A, a, labels, g), side(B, a, labels, g), "xy")[0].a for g in (None, slides))
    assert alone.mean == grouped.mean
    assert alone.ci95 is not None
    assert grouped.ci95 is not None
    assert np.ptp(grouped.ci95) > 2.5 * np.ptp(alone.ci95)


@pytest.mark.parametrize("groups", [None, ["one"] * 30 + ["two"] + ["three"] * 30], ids=["one image", "one group"])
def test_a_class_that_one_group_holds_has_a_recall_without_an_interval(groups: list[str] | None) -> None:
    labels = np.array([0] * 30 + [1] + [0] * 30)
    a = np.stack([labels, labels])
    found = {r.name: r for r in recalls(side(A, 0 * a, labels, groups), side(B, a, labels, groups), "xy")}
    assert (found["y"].a.mean, found["y"].b.mean, found["y"].gain.ci95, found["y"].p_value) == (0.0, 1.0, None, 1.0)
    assert found["x"].gain.ci95 is not None
    numbers = [one.gain.mean for one in found.values()] + [end for one in found.values() for end in one.b.ci95 or ()]
    assert np.isfinite(numbers).all()


def test_answers_that_are_all_alike_do_not_make_an_interval_of_nothing() -> None:
    labels = np.repeat([0, 1], [5, 50])
    a = np.stack([labels] * 3)
    few, many = recalls(side(A, a, labels), side(B, a, labels), "xy")
    for found, images in ((few, 5), (many, 50)):
        assert found.a.ci95 is not None and found.gain.ci95 is not None
        unseen = 0.025 ** (1 / images)  # so much of the recall is sure, after Clopper and Pearson
        assert found.a.ci95[0] == pytest.approx(unseen, abs=0.15)
        assert found.a.ci95[1] == 1.0
        assert found.gain.ci95[1] == pytest.approx(1 - unseen, abs=0.15)
        assert found.gain.ci95[0] == -found.gain.ci95[1]


def test_three_images_cannot_make_a_clear_difference_and_thirty_can() -> None:
    labels = np.repeat([0, 1], [3, 30])
    b = np.stack([labels] * 3)
    few, many = (
        next(r for r in recalls(side(A, 1 - b, labels), side(B, b, labels), "xy") if r.name == n) for n in "xy"
    )
    assert few.gain.mean == many.gain.mean == 1.0
    assert few.p_value == 0.25  # three signs, all alike, either way
    assert many.p_value < 1e-6
    assert heading([few], A, B) == "No class is clearly better recognised by one strategy"
    assert heading([few, many], A, B) == "Fine-tuning recognises y better (+100.0 points)"


def one(name: str, gain: float, p_value: float) -> class_recall.ClassRecall:
    share = class_recall.Recall(0.5, (0.4, 0.6))
    return class_recall.ClassRecall(
        name, 40, share, share, class_recall.Recall(gain, (gain - 0.1, gain + 0.1)), p_value
    )


def test_the_heading_names_the_largest_clear_gain_of_each_strategy() -> None:
    found = [
        one("eosinophil", 0.12, 1e-4),
        one("monocyte", 0.2, 1e-5),
        one("blast", 0.4, 0.3),
        one("band", -0.05, 1e-3),
    ]
    told = heading(found, A, B)
    assert told == (
        "Fine-tuning recognises monocyte better (+20.0 points, and 1 more class); "
        "feature extraction recognises band better (+5.0 points)"
    )


def test_one_of_many_classes_needs_more_than_five_percent() -> None:
    others = [one(f"class {i}", 0.0, 0.9) for i in range(19)]
    assert heading([one("band", 0.1, 0.02)], A, B).startswith("Fine-tuning recognises band")
    assert heading([one("band", 0.1, 0.02), *others], A, B) == "No class is clearly better recognised by one strategy"


def test_of_many_classes_the_surest_differences_are_drawn_in_their_order() -> None:
    found = [one(f"class {i}", 0.3 - i / 100, 1.0 - i / 100) for i in range(30)]
    assert [r.name for r in most_apart(found)] == [f"class {i}" for i in range(10, 30)]
    assert most_apart(found[:20]) == found[:20]


def test_the_section_shows_every_class_of_both_winners(make_study: MakeStudy) -> None:
    section = class_section(StudyData.read(make_study()))
    assert section is not None
    assert section.table is not None
    assert {row[0] for row in section.table.rows} == set(HOSTILE)
    assert all(row[1] == "48" for row in section.table.rows)
    gains = [float(row[4].split()[0].replace("−", "-")) for row in section.table.rows]
    assert gains == sorted(gains, reverse=True)
    assert section.legend == [A, B]
    first = section.table.rows[0]
    assert f"{first[0]} {first[2].split(' (')[0]} and {first[3].split(' (')[0]}" in section.pictures[0].alt
    assert "3 seeds" in section.note
    assert "test groups" in section.note
    assert "Drawn are" not in section.note


def test_a_figure_of_many_classes_says_that_it_leaves_some_out(make_study: MakeStudy) -> None:
    names = tuple(f"class {i}" for i in range(24))
    section = class_section(StudyData.read(make_study(classes=names, trials=2)))
    assert section is not None
    assert section.table is not None
    assert len(section.table.rows) == 24
    assert "Drawn are the 20 of 24 classes" in section.note
    assert len(re.findall(r"class \d+ ", section.pictures[0].alt)) == 20


def test_classes_are_silent_until_two_winners_share_seeds(make_study: MakeStudy) -> None:
    data = StudyData.read(make_study())
    assert class_section(data) is not None
    alone = {name: dataclasses.replace(w, seeds=w.seeds[:1]) for name, w in data.winners.items()}
    changed = dataclasses.replace(data)
    vars(changed)["winners"] = alone  # a cached property
    assert class_section(changed) is None
    assert class_section(StudyData.read(make_study("begun", until="search"))) is None
