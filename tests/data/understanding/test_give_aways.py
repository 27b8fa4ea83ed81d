"""Facts about the files that tell the class are named, and noise is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.data.decoding.decode import Facts
from harness.data.traits import Traits
from harness.data.understanding.give_aways import give_aways


def facts(**changes: Any) -> Facts:
    return Facts(**{"width": 80, "height": 80, "kind": "8-bit RGB PNG"} | changes)


def traits(**changes: Any) -> Traits:
    plain = {"size": 1000, "brightness": 0.5, "border": 0.5, "camera": "", "taken": "", "thumbnail": "00" * 256}
    return Traits(**plain | changes)


def looked(all_facts: list[Facts], all_traits: list[Traits], labels: Any, groups: list[str] | None = None) -> Any:
    labels = np.asarray(labels, np.int64)
    names = [f"class{number}" for number in range(int(labels.max()) + 1)]
    return give_aways(all_facts, all_traits, labels, groups or [""] * len(labels), names)


LABELS = [0, 1] * 20
TELLING = {
    "the file format": ([facts(), facts(kind="8-bit RGB JPEG")], [traits(), traits()], "class1: JPEG (20 of 20)"),
    "bit depth and colour type": ([facts(), facts(kind="16-bit grey PNG")], [traits(), traits()], "16-bit grey"),
    "the image size": ([facts(), facts(width=81)], [traits(), traits()], "class1: 81 × 80"),
    "the brightness of the border": ([facts(), facts()], [traits(), traits(border=0.62)], "class1: 0.62"),
    "the camera": ([facts(), facts()], [traits(camera="Nikon"), traits(camera="Canon")], "Canon (20 of 20)"),
    "the date": ([facts(), facts()], [traits(taken="2024-01-01"), traits(taken="2024-03-01")], "2024-03-01"),
}


@pytest.mark.parametrize("fact", TELLING)
def test_a_fact_that_tells_the_class_is_named_with_its_values(fact: str) -> None:
    two_facts, two_traits, words = TELLING[fact]
    [found] = looked([two_facts[n] for n in LABELS], [two_traits[n] for n in LABELS], LABELS)
    assert found.fact == fact and found.balanced_accuracy == 1
    sentence = found.sentence(2)
    assert words in sentence and "100%" in sentence and "guessing: 50%" in sentence


@pytest.mark.parametrize("seed", range(20))
def test_facts_that_are_drawn_at_random_are_not_named(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.permutation([0, 1, 2] * 14)
    noise = [traits(border=float(random.random()), camera=str(random.choice(["a", "b"]))) for _ in labels]
    sizes = [facts(width=int(random.integers(50, 90)), height=int(random.integers(50, 90))) for _ in labels]
    assert looked(sizes, noise, labels) == []


def test_a_fact_of_one_group_is_no_give_away_of_its_class() -> None:
    # one slide of each class is dark; the other slides are alike, so that brightness says nothing about a new slide
    labels = [label for label in (0, 1) for _ in range(40)]
    groups = [f"{label}-{number % 4}" for label in (0, 1) for number in range(40)]
    dark = [traits(border=0.1 if group == "0-0" else 0.9 if group == "1-0" else 0.5) for group in groups]
    assert looked([facts()] * 80, dark, labels, groups) == []
    assert looked([facts()] * 80, dark, labels) == []  # a quarter of the images is not clear enough either


def test_a_partial_give_away_has_its_balanced_accuracy() -> None:
    labels = [0] * 90 + [1] * 30
    # every image of the small class has another size, and a third of the large one has it, too
    sizes = [facts(width=90 if label or number % 3 == 0 else 80) for number, label in enumerate(labels)]
    [found] = looked(sizes, [traits()] * 120, labels)
    assert found.balanced_accuracy == pytest.approx((2 / 3 + 1) / 2, abs=0.02)


def test_with_few_images_of_a_class_nothing_is_said() -> None:
    labels = [0] * 5 + [1] * 40
    assert looked([facts(width=80 + label) for label in labels], [traits()] * 45, labels) == []


def test_damaged_dates_are_no_error() -> None:
    dates = ["2024-13-45", "yesterday", "", "0000-00-00"]
    assert looked([facts()] * 40, [traits(taken=dates[n % 4]) for n in range(40)], LABELS) == []


def test_folds_keep_groups_together_so_that_a_fact_of_each_slide_is_no_give_away() -> None:
    # each slide has a brightness of its own, which tells the class of its own images but not of another slide's
    slides = [("a", 0, 0.1), ("b", 1, 0.3), ("c", 0, 0.5), ("d", 1, 0.7)]
    images = [slide for slide in slides for _ in range(20)]
    labels, borders = [label for _, label, _ in images], [traits(border=border) for _, _, border in images]
    assert looked([facts()] * 80, borders, labels, [name for name, _, _ in images]) == []
    [found] = looked([facts()] * 80, borders, labels)
    assert found.balanced_accuracy == 1
