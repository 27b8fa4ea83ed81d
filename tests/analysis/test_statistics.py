"""The interval counts seeds and test images, and the outcome is read off it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from harness.analysis.jackknife import group_index, variance, without_each
from harness.analysis.statistics import compare_strategies, difference, estimate, holm_levels
from harness.benchmarks.simulation import Population, draw
from harness.results.metrics import METRICS, score


def answers(
    rng: np.random.Generator, labels: NDArray[np.int64], seeds: int, share: float, classes: int = 4
) -> NDArray[np.int64]:
    """Class indices (seeds, images) that are right with this probability."""
    wrong = (labels + rng.integers(1, classes, (seeds, labels.size))) % classes
    return np.where(rng.random((seeds, labels.size)) < share, labels, wrong)


def probabilities(rng: np.random.Generator, labels: NDArray[np.int64], seeds: int, gain: float) -> NDArray[np.float64]:
    classes = int(labels.max()) + 1
    logits = rng.normal(size=(seeds, labels.size, classes)) + gain * np.eye(classes)[labels]
    return np.asarray(np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True))


@pytest.mark.parametrize("images", [6, 9, 15, 60])
def test_few_images_that_answer_alike_decide_nothing(images: int) -> None:
    labels = np.arange(images) % 3
    same = np.tile(answers(np.random.default_rng(0), labels, 1, 0.7, classes=3), (3, 1))
    found = compare_strategies(same, same, labels)
    assert (found.difference, found.outcome) == (0.0, "undecided")
    assert found.ci95[1] > 3.7 / images / 2  # what the next image could still show: 3.7 more at most, 97.5 % sure
    assert found.ci95[0] == -found.ci95[1]
    assert found.probability_b_better == pytest.approx(0.5)
    assert found.needed is not None


def test_many_images_that_answer_alike_are_equal() -> None:
    labels = np.arange(3000) % 3
    same = np.tile(answers(np.random.default_rng(0), labels, 1, 0.7, classes=3), (3, 1))
    assert compare_strategies(same, same, labels).outcome == "equal"


def test_a_constant_side_against_a_right_one_on_four_images_shows_little() -> None:
    labels = np.array([0, 0, 1, 1])
    constant, right = np.zeros((2, 4), np.int64), np.stack([labels, labels])
    found = compare_strategies(constant, right, labels)
    assert found.difference == 0.5
    assert found.outcome == "undecided"
    assert found.ci95[0] < 0 and found.ci95[1] > 0.5


@pytest.mark.parametrize("objective", METRICS)
def test_no_interval_of_few_images_is_a_point_and_none_leaves_the_scale(objective: str) -> None:
    labels = np.arange(8) % 2
    low, high = METRICS[objective].bounds
    sure = np.tile(np.where(np.eye(2)[labels] == 1, 0.999, 0.001), (2, 1, 1))
    for found in (
        estimate(sure, labels, objective=objective),
        estimate(sure[:, :, ::-1], labels, objective=objective),  # always wrong
    ):
        assert low <= found.interval()[0] < found.interval()[1] <= high
        assert found.interval()[1] - found.interval()[0] > 0.15
    found = difference(sure[:, :, ::-1], sure, labels, objective=objective)
    assert low - high <= found.interval()[0] < found.interval()[1] <= high - low


def test_many_images_of_few_groups_that_answer_alike_leave_much_open() -> None:
    """Three slides of a hundred images each are three draws and no three hundred."""
    labels, groups = np.zeros(300, np.int64), np.repeat(["one", "two", "three"], 100)
    same = np.stack([labels, labels])
    alone = estimate(same, labels, objective="accuracy").interval()
    few = estimate(same, labels, groups, objective="accuracy").interval()
    assert alone[0] > 0.9
    assert few[0] < 0.4
    assert np.ptp(difference(same, same, labels, groups, "accuracy").interval()) > 1.0


def test_a_class_of_two_images_leaves_more_open_than_its_share_of_them() -> None:
    even, rare = np.arange(60) % 2, np.array([0] * 58 + [1] * 2)
    widths = [np.ptp(difference(x[None].repeat(2, 0), x[None].repeat(2, 0), x).interval()) for x in (even, rare)]
    assert widths[1] > 3 * widths[0]
    alike = [
        np.ptp(difference(x[None].repeat(2, 0), x[None].repeat(2, 0), x, objective="accuracy").interval())
        for x in (even, rare)
    ]
    assert alike[0] == pytest.approx(alike[1])  # where every image counts alike


@pytest.mark.parametrize("objective", METRICS)
def test_a_positive_difference_favours_b_for_every_objective(objective: str) -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(400) % 4
    worse, better = probabilities(rng, labels, 4, 0.5), probabilities(rng, labels, 4, 3.0)
    if objective == "calibration_error":  # overconfident against confident
        worse = worse**8 / (worse**8).sum(axis=2, keepdims=True)
    found = compare_strategies(worse, better, labels, objective=objective)
    assert found.difference > 0
    assert found.outcome == "better"
    assert found.probability_b_better > 0.9
    turned = compare_strategies(better, worse, labels, objective=objective)
    assert turned.outcome == "worse"
    assert turned.difference == pytest.approx(-found.difference)
    assert turned.ci95 == pytest.approx((-found.ci95[1], -found.ci95[0]), abs=0.005)


def test_the_difference_is_the_mean_of_paired_scores() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 4, 200)
    a, b = answers(rng, labels, 3, 0.6), answers(rng, labels, 3, 0.7)
    scores = [[score("macro_f1", side[s], labels, 4) for s in range(3)] for side in (a, b)]
    found = compare_strategies(a, b, labels, objective="macro_f1")
    assert found.difference == pytest.approx(np.mean(scores[1]) - np.mean(scores[0]))


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("objective", [name for name in METRICS if name != "auroc"])
def test_leaving_a_group_out_gives_the_metric_of_the_other_images(objective: str, grouped: bool) -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 40)
    predictions = [probabilities(rng, labels, 1, gain)[0] for gain in (1.0, 2.0)]
    index = rng.permutation(40) % 5 if grouped else rng.permutation(40)
    found = without_each(objective, predictions, labels, index, 3)
    slow = [
        [score(objective, p[index != g], labels[index != g]) for p in predictions] for g in range(int(index.max()) + 1)
    ]
    assert found == pytest.approx(np.array(slow))


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("objective", METRICS)
def test_the_variance_is_that_of_leaving_each_group_out(objective: str, grouped: bool) -> None:
    rng = np.random.default_rng(8)
    labels = rng.integers(0, 3, 200)
    prediction = probabilities(rng, labels, 1, 1.5)[0]
    index = rng.permutation(200) % 40 if grouped else np.arange(200)
    groups = int(index.max()) + 1
    slow = np.array([score(objective, prediction[index != g], labels[index != g]) for g in range(groups)])
    fast = variance(without_each(objective, [prediction], labels, index, 3))[0]
    first_order = objective == "auroc"  # no value of sums
    assert fast == pytest.approx(slow.var() * (groups - 1), rel=0.05 if first_order else 1e-9)


def test_the_jackknife_of_auroc_agrees_with_scoring_redrawn_images() -> None:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, 300)
    prediction = probabilities(rng, labels, 1, 1.0)[0]
    fast = variance(without_each("auroc", [prediction], labels, group_index(None, 300), 3))[0]
    rows = rng.integers(0, 300, (300, 300))
    slow = np.array([score("auroc", prediction[r], labels[r]) for r in rows])
    assert fast**0.5 == pytest.approx(slow.std(), rel=0.2)


def test_the_variance_of_a_small_class_is_not_too_small() -> None:
    rng = np.random.default_rng(15)
    labels = np.repeat([0, 1], [200, 3])
    found = []
    for _ in range(400):
        right = rng.random(203) < 0.5
        left_out = without_each("balanced_accuracy", [np.where(right, labels, 1 - labels)], labels, np.arange(203), 2)
        found.append(float(variance(left_out)[0]))
    truth = 0.25 * (0.25 / 200 + 0.25 / 3)
    assert 1.0 < np.mean(found) / truth < 1.6  # 3 / 2 where three images are a class


def test_more_spread_between_seeds_widens_the_interval() -> None:
    rng = np.random.default_rng(5)
    labels = np.arange(1000) % 4
    a = answers(rng, labels, 3, 0.7)
    steady = answers(rng, labels, 3, 0.8)
    jumpy = np.concatenate([answers(rng, labels, 1, share) for share in (0.65, 0.8, 0.95)])
    narrow, wide = compare_strategies(a, steady, labels), compare_strategies(a, jumpy, labels)
    assert np.ptp(wide.ci95) > 4 * np.ptp(narrow.ci95)
    assert narrow.outcome == "better"
    assert wide.outcome == "undecided"


def test_the_interval_has_the_quantiles_of_few_seeds_and_of_the_images() -> None:
    rng = np.random.default_rng(11)
    labels = np.arange(400) % 4
    given = np.concatenate([answers(rng, labels, 1, share) for share in (0.6, 0.7, 0.9)])
    found = estimate(given, labels)
    scores = [score("balanced_accuracy", one, labels) for one in given]
    of_seeds = stats.t.ppf(0.975, 2) * stats.sem(scores)
    of_images = stats.t.ppf(0.975, 399) * (found.of_images + found.of_unseen) ** 0.5
    assert found.of_unseen < 0.01 * found.of_both  # many disagreements show the variance themselves
    assert found.half_width() == pytest.approx(np.hypot(of_seeds, of_images))


def test_fewer_test_images_widen_the_interval_where_seeds_agree() -> None:
    rng = np.random.default_rng(6)
    labels = np.arange(2000) % 4
    a, b = answers(rng, labels, 1, 0.7).repeat(5, axis=0), answers(rng, labels, 1, 0.75).repeat(5, axis=0)
    many = compare_strategies(a, b, labels)
    few = compare_strategies(a[:, :200], b[:, :200], labels[:200])
    assert np.ptp(few.ci95) == pytest.approx(np.ptp(many.ci95) * 10**0.5, rel=0.25)


def test_groups_that_answer_alike_widen_the_interval() -> None:
    rng = np.random.default_rng(7)
    labels = np.arange(600) % 4
    groups = np.repeat([f"slide{i}" for i in range(20)], 30)
    likes_b = np.repeat(rng.random(20) < 0.5, 30)  # a whole slide is right on one side only
    a = np.where(likes_b, (labels + 1) % 4, labels)[None].repeat(3, axis=0)
    b = np.where(likes_b, labels, (labels + 1) % 4)[None].repeat(3, axis=0)
    alone, grouped = compare_strategies(a, b, labels), compare_strategies(a, b, labels, groups)
    assert np.ptp(grouped.ci95) > 4 * np.ptp(alone.ci95)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(8)
    labels = np.arange(120) % 2
    covered = {0.02: 0, 0.2: 0}
    for spread in covered:
        for _ in range(50):
            shift = rng.normal(0, spread, (2, 3))
            sides = [
                np.concatenate([answers(rng, labels, 1, float(np.clip(0.75 + s, 0, 1)), 2) for s in side])
                for side in shift
            ]
            low, high = compare_strategies(sides[0], sides[1], labels, objective="accuracy").ci95
            covered[spread] += low <= 0 <= high
    assert min(covered.values()) >= 43, covered  # 47.5 of 50 expected; 42 or fewer come once in 100 times


def test_an_interval_inside_the_zone_is_equal_even_where_it_leaves_zero_out() -> None:
    labels = np.arange(10_000) % 2
    a = labels.copy()[None].repeat(3, axis=0)
    b = a.copy()
    a[:, :20] = 1 - a[:, :20]  # b is better by 0.2 points, and surely so
    found = compare_strategies(a, b, labels, equivalence=0.01)
    assert found.ci95[0] > 0
    assert found.outcome == "equal"
    assert compare_strategies(a, b, labels, equivalence=0.0).outcome == "better"


def test_undecided_says_what_would_probably_decide() -> None:
    rng = np.random.default_rng(9)
    labels = np.arange(300) % 4
    a, b = answers(rng, labels, 3, 0.70), answers(rng, labels, 3, 0.73)
    found = compare_strategies(a, b, labels)
    assert found.outcome == "undecided"
    assert found.needed is not None
    assert found.needed.seeds is None or found.needed.seeds > 3
    assert found.needed.test_images is None or found.needed.test_images > 300
    assert found.needed.seeds or found.needed.test_images


def test_the_seeds_that_would_probably_decide_do() -> None:
    """Confirmations of four seeds from worlds of many truths: those left undecided get the seeds they ask for."""
    rng = np.random.default_rng(7)
    world = Population((1, 1, 1), (0, 0, 0), seed=0.15)
    decided = []
    for _ in range(250):
        drawn = draw(world, seeds=40, images=400, truth=float(np.clip(rng.normal(0, 0.04), -0.19, 0.19)), rng=rng)
        needed = compare_strategies(drawn.a[:4], drawn.b[:4], drawn.labels).needed
        if needed and needed.seeds and needed.seeds <= 40:
            more = compare_strategies(drawn.a[: needed.seeds], drawn.b[: needed.seeds], drawn.labels)
            decided.append(more.outcome != "undecided")
    assert len(decided) > 30
    assert np.mean(decided) > 0.6, "more often than not, also where most truths are small beside the luck of a seed"


def test_more_images_are_asked_for_where_they_and_not_the_seeds_leave_it_open() -> None:
    rng = np.random.default_rng(3)
    labels = np.arange(200) % 4
    shared = rng.random(200)  # every seed answers alike: the images alone are luck
    a, b = (np.tile(np.where(shared < share, labels, (labels + 1) % 4), (5, 1)) for share in (0.70, 0.74))
    half = rng.permutation(200)[:60]
    few = compare_strategies(a[:, half], b[:, half], labels[half], equivalence=0.0)
    assert few.outcome == "undecided" and few.needed is not None
    assert few.needed.seeds is None
    assert few.needed.test_images is not None and few.needed.test_images > 60


def test_a_class_of_one_image_gives_finite_numbers() -> None:
    labels = np.array([0] * 30 + [1])
    rng = np.random.default_rng(11)
    a, b = answers(rng, labels, 2, 0.6, 2), answers(rng, labels, 2, 0.8, 2)
    found = compare_strategies(a, b, labels)
    assert np.isfinite([found.difference, *found.ci95, found.probability_b_better]).all()


def test_a_single_group_is_refused() -> None:
    labels = np.arange(10) % 2
    with pytest.raises(ValueError, match="two groups or more"):
        compare_strategies(labels[None].repeat(2, 0), labels[None].repeat(2, 0), labels, np.array(["one"] * 10))


def test_the_p_value_is_where_the_interval_reaches_zero() -> None:
    rng = np.random.default_rng(12)
    labels = np.arange(400) % 4
    found = difference(answers(rng, labels, 4, 0.7), answers(rng, labels, 4, 0.76), labels)
    low, _ = found.interval(1 - found.p_value)
    assert low == pytest.approx(0, abs=1e-6)


def test_holm_gives_the_smallest_p_the_strictest_level_and_stops_at_the_first_failure() -> None:
    assert holm_levels([0.001, 0.03, 0.02]) == pytest.approx([1 - 0.05 / 3, 1 - 0.05, 1 - 0.05 / 2])
    assert holm_levels([0.5, 0.02, 0.9]) == pytest.approx([1 - 0.05 / 3] * 3)


def test_an_estimate_of_one_side_keeps_the_objectives_direction() -> None:
    rng = np.random.default_rng(13)
    labels = np.arange(200) % 4
    found = estimate(probabilities(rng, labels, 3, 1.0), labels, objective="log_loss")
    assert found.mean > 0
    assert found.interval()[0] < found.mean < found.interval()[1]


@pytest.mark.parametrize(
    ("a", "b", "objective", "words"),
    [
        ((1, 10), (1, 10), "accuracy", "two seeds and two images or more"),
        ((2, 10), (3, 10), "accuracy", "same seeds"),
        ((2, 9), (2, 9), "accuracy", "one label an image"),
        ((2, 10), (2, 10), "log_loss", "needs probabilities"),
        ((2, 10), (2, 10), "typo", "objective must be one of"),
    ],
)
def test_input_that_does_not_fit_is_refused(a: tuple[int, ...], b: tuple[int, ...], objective: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        compare_strategies(np.zeros(a, int), np.zeros(b, int), np.arange(10) % 2, objective=objective)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": list("abcabcabca")}, "labels must be class indices"),
        ({"labels": np.arange(10) % 3 + 0.5}, "labels must be class indices"),
        ({"labels": (np.arange(10) % 3)[:, None]}, "one label an image"),
        ({"predictions_a": np.full((3, 10), np.nan)}, "predictions must be class indices"),
        ({"predictions_a": np.full((3, 10), -1)}, "class indices must lie in"),
        ({"predictions_a": np.zeros((3, 0), int), "predictions_b": np.zeros((3, 0), int), "labels": []}, "two images"),
        ({"groups": [1.0, np.nan] * 5}, "names are NaN"),
        ({"groups": np.array(["a", 1] * 5, object)}, "names of one type"),
        ({"equivalence": -0.01}, "zero or more"),
        ({"equivalence": float("nan")}, "zero or more"),
    ],
)
def test_what_means_nothing_is_refused_in_words(change: dict[str, Any], words: str) -> None:
    sound = {
        "predictions_a": np.zeros((3, 10), int),
        "predictions_b": np.zeros((3, 10), int),
        "labels": np.arange(10) % 3,
    }
    with pytest.raises(ValueError, match=words):
        compare_strategies(**(sound | change))


@pytest.mark.parametrize("objective", ["log_loss", "calibration_error"])
def test_logits_are_no_probabilities(objective: str) -> None:
    labels = np.arange(30) % 3
    sound = probabilities(np.random.default_rng(1), labels, 2, 1.0)
    assert compare_strategies(sound, sound.astype(np.float16), labels, objective=objective).difference is not None
    for wrong in (np.log(sound), 3 * sound):
        with pytest.raises(ValueError, match=r"needs probabilities \(for each image 0 or more with the sum 1"):
            compare_strategies(sound, wrong, labels, objective=objective)
