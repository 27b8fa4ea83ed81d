"""Verdicts are right as often as they say: a small part of `make calibrate`, and what it counts with."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from harness.analysis import statistics
from harness.benchmarks import calibration, calibration_page
from harness.benchmarks.aa_test import AATest, Trained, judge
from harness.benchmarks.calibration import Cell, Counted, above, count, share
from harness.benchmarks.simulation import Population, draw, labels_of
from harness.results.metrics import score

WORLD = dataclasses.replace(calibration.LAYOUTS["unbalanced"], seed=0.08)


def test_the_worlds_truth_is_what_its_draws_come_to() -> None:
    rng = np.random.default_rng(0)
    for world in (WORLD, dataclasses.replace(calibration.LAYOUTS["grouped"], seed=0.08)):
        found = []
        for _ in range(150):
            drawn = draw(world, 2, 600, 0.05, rng)
            found.append(
                [np.mean([score("balanced_accuracy", p, drawn.labels) for p in side]) for side in (drawn.a, drawn.b)]
            )
        a, b = np.mean(found, axis=0)
        error = float(np.std(np.diff(found, axis=1)) / 150**0.5)
        assert b - a == pytest.approx(0.05, abs=4 * error)
        assert error < 0.004
        assert a == pytest.approx(WORLD.recall, abs=0.01)


def test_every_class_has_its_share_and_one_image_at_least() -> None:
    labels = labels_of(WORLD, 100)
    assert len(labels) == 100
    counts = np.bincount(labels)
    assert counts.min() >= 1
    assert counts[0] > 10 * counts[-1]


@pytest.mark.parametrize("layout", calibration.LAYOUTS)
@pytest.mark.parametrize("luck", calibration.LUCK)
def test_false_winners_are_as_rare_as_promised(layout: str, luck: str) -> None:
    cells = [count(Cell(layout, seeds, 200, luck, "none"), 60, seed) for seed, seeds in enumerate((2, 3, 5, 10))]
    assert share(cells, lambda c: c.false_winners) <= 0.10  # 5 % of 240 is 12; 24 or more come once in a thousand times
    assert share(cells, lambda c: c.covered) >= 0.90


@pytest.mark.parametrize("layout", calibration.EASY)
def test_few_images_of_an_easy_task_decide_nothing_wrongly(layout: str) -> None:
    cells = [
        count(Cell(layout, seeds, images, "small", truth), 30, 10 * seeds + images)
        for seeds in (2, 5)
        for images in (6, 15, 60)
        for truth in ("none", "three margins")
    ]
    apart = [c for c in cells if c.cell.truth == "three margins"]
    assert share([c for c in cells if c.cell.truth == "none"], lambda c: c.false_winners) <= 0.10
    assert share(apart, lambda c: c.equal) <= 0.10
    assert share(cells, lambda c: c.covered) >= 0.90


def test_the_test_would_see_an_interval_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: without imagined images, `equal` comes from a handful of images that are answered alike."""
    real = statistics.difference

    def sure(*args: object) -> statistics.Estimate:
        found = real(*args)  # type: ignore[arg-type]
        return dataclasses.replace(found, of_unseen=1e-12, middle=found.mean)

    monkeypatch.setattr(statistics, "difference", sure)
    cells = [count(Cell("very easy", 5, images, "small", "three margins"), 60, images) for images in (6, 15)]
    assert share(cells, lambda c: c.equal) > 0.15
    assert share(cells, lambda c: c.covered) < 0.85


def test_the_test_would_see_an_interval_that_forgets_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Cell("grouped", 5, 300, "small", "none")
    honest = count(cell, 60, 0)
    real = statistics.difference

    def forgetful(*args: object) -> statistics.Estimate:
        return dataclasses.replace(real(*args), of_images=0.0, of_both=0.0, of_unseen=1e-12)  # type: ignore[arg-type]

    monkeypatch.setattr(statistics, "difference", forgetful)
    assert count(cell, 60, 0).false_winners > 15 > honest.false_winners


def test_equal_at_the_margin_is_rare_and_a_large_difference_is_found() -> None:
    margin = count(Cell("balanced", 5, 3000, "small", "margin"), 80, 0)
    large = count(Cell("balanced", 5, 1000, "small", "large"), 80, 1)
    assert margin.equal <= 10
    assert large.better > 75
    assert large.worse == 0


def test_cells_beyond_chance_are_named_and_others_are_not() -> None:
    one = Counted(Cell("balanced", 5, 100, "small", "none"), 500, 0, 0, 0, 500, 0, 0.1, 0, 0.05)
    bad, usual = dataclasses.replace(one, better=60), dataclasses.replace(one, better=27)
    assert above([bad, usual, one], lambda c: c.false_winners, 0.05) == [bad.cell]


def test_the_same_on_both_sides_has_no_winner_and_a_different_one_has() -> None:
    rng = np.random.default_rng(3)
    labels = np.arange(300) % 3

    def answers(share_right: float) -> np.ndarray:
        right = rng.random((10, 300)) < share_right
        return np.where(right, labels, (labels + 1) % 3)

    groups = np.repeat(np.arange(30), 10).astype(str)
    same = judge([Trained(answers(0.8), labels, groups) for _ in range(10)], 5)
    assert same.repeats == 10
    assert same.winners <= 2
    mixed = np.concatenate([answers(0.6)[:5], answers(0.9)[:5]])
    assert judge([Trained(mixed, labels, groups)], 5).winners == 1


def test_the_page_shows_every_goal_and_the_counts_are_kept(tmp_path: Path) -> None:
    cells = [
        Cell("balanced", seeds, 100, luck, truth)
        for seeds in calibration.SEEDS
        for luck in calibration.LUCK
        for truth in calibration.TRUTHS
        if truth != "three margins"
    ]
    cells += [Cell("very easy", 2, images, "small", truth) for images in (6, 60) for truth in ("none", "three margins")]
    said: list[str] = []
    counted = calibration.run(said.append, tmp_path, repeats=4, cells=cells)
    text = calibration_page.write(tmp_path, counted, [AATest(3, 20, 1, 0, 19)], "a machine")
    stored = json.loads((tmp_path / "simulation.json").read_text())
    assert [row["covered"] for row in stored] == [one.covered for one in counted]
    assert [row["truth"] for row in stored] == [cell.truth for cell in cells]
    for words in (
        "Few test images",
        "`equal` at three margins",
        "false winners",
        "`equal` at the margin",
        "coverage",
        "power within 10 points",
        "1 (5.0%)",
    ):
        assert words in text
    assert "nan" not in text.split("## By test images")[0]


def test_an_ability_gives_the_accuracy_it_was_asked_for() -> None:
    world: Population = WORLD
    assert world.balanced_accuracy(world.ability(0.83)) == pytest.approx(0.83)
