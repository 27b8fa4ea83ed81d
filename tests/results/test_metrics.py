"""The metrics are scikit-learn's numbers, and a small or one-sided sample still gives a number."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sk

from harness.config.study import OBJECTIVES, StudyConfig
from harness.results.metrics import METRICS, all_metrics, confusion, direction, parts_of, score, sign_of


def sample(n: int, classes: int, seed: int, signal: float = 1.5) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, n, p=rng.dirichlet(np.ones(classes)))
    logits = rng.normal(size=(n, classes)) + signal * np.eye(classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities.astype(np.float32), labels


def calibration_error(labels: Any, probabilities: Any) -> float:
    """The mean gap between confidence and accuracy over fifteen bins; scikit-learn has none."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return expected


def of_classes(reference: Callable[..., float]) -> Callable[..., float]:
    return lambda labels, probabilities: reference(labels, probabilities.argmax(axis=1))


REFERENCES: dict[str, Callable[..., float]] = {
    "balanced_accuracy": of_classes(sk.balanced_accuracy_score),
    "accuracy": of_classes(sk.accuracy_score),
    "macro_f1": of_classes(partial(sk.f1_score, average="macro")),
    "auroc": partial(sk.roc_auc_score, multi_class="ovr"),
    "mcc": of_classes(sk.matthews_corrcoef),
    "log_loss": sk.log_loss,
    "calibration_error": calibration_error,
}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_scikit_learns(name: str, seed: int) -> None:
    probabilities, labels = sample(400, 5, seed)
    labels[:5] = np.arange(5)  # scikit-learn wants every class for AUROC
    rows = probabilities.astype(float)
    rows /= rows.sum(axis=1, keepdims=True)
    assert score(name, probabilities, labels) == pytest.approx(REFERENCES[name](labels, rows), abs=1e-6)
    assert all_metrics(probabilities, labels)[name] == score(name, probabilities, labels)


@pytest.mark.parametrize("signal", [-30.0, 0.0, 1.5, 30.0])
@pytest.mark.parametrize("name", METRICS)
def test_no_metric_leaves_its_bounds(name: str, signal: float) -> None:
    lowest, highest = METRICS[name].bounds
    for seed in range(5):
        assert lowest <= score(name, *sample(50, 3, seed, signal)) <= highest


@pytest.mark.parametrize("name", METRICS)
def test_what_the_images_add_makes_the_score(name: str) -> None:
    probabilities, labels = sample(200, 4, 5)
    kinds, kind_of, offset = parts_of(name, probabilities, labels, 4)
    value = METRICS[name].value(kinds[kind_of].sum(axis=0)[None])[0] + offset
    assert value == pytest.approx(score(name, probabilities, labels))


def test_the_sign_turns_every_score_into_one_of_which_more_is_better() -> None:
    good, labels = sample(300, 3, 0, signal=4.0)
    bad = np.roll(good, 1, axis=1)
    for name in METRICS:
        assert sign_of(name) * score(name, good, labels) > sign_of(name) * score(name, bad, labels)


def test_tied_probabilities_count_half_in_auroc() -> None:
    assert score("auroc", np.full((8, 2), 0.5), np.array([0, 1] * 4)) == pytest.approx(0.5)


def test_a_class_without_a_label_is_left_out_and_never_nan() -> None:
    probabilities, labels = sample(60, 4, 3)
    labels = labels % 2  # classes 2 and 3 never occur, but are predicted
    got = all_metrics(probabilities, labels)
    assert all(np.isfinite(value) for value in got.values())
    predicted = probabilities.argmax(axis=1)
    recalls = [(predicted[labels == k] == k).mean() for k in (0, 1)]
    assert got["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    areas = [sk.roc_auc_score(labels == k, probabilities[:, k]) for k in (0, 1)]
    assert got["auroc"] == pytest.approx(np.mean(areas))


def test_one_class_alone_gives_finite_numbers() -> None:
    probabilities, _ = sample(10, 3, 0)
    got = all_metrics(probabilities, np.zeros(10, int))
    assert got["auroc"] == 0.5
    assert got["mcc"] == 0.0
    assert all(np.isfinite(value) for value in got.values())


def test_a_probability_of_zero_for_the_truth_costs_a_finite_loss() -> None:
    assert score("log_loss", np.array([[1.0, 0.0]], np.float32), [1]) == pytest.approx(15.94, abs=0.01)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_probabilities_that_are_not_finite_are_refused(bad: float) -> None:
    probabilities, labels = sample(20, 3, 0)
    probabilities[4, 1] = bad
    with pytest.raises(ValueError, match="finite"):
        all_metrics(probabilities, labels)
    with pytest.raises(ValueError, match="finite"):
        score("accuracy", probabilities, labels)


@pytest.mark.parametrize("objective", [name for name, metric in METRICS.items() if metric.needs_probabilities])
def test_class_indices_are_refused_where_probabilities_are_needed(objective: str) -> None:
    with pytest.raises(ValueError, match=f"{objective} needs probabilities"):
        score(objective, np.array([0, 1]), np.array([0, 1]))


@pytest.mark.parametrize("objective", [name for name, metric in METRICS.items() if not metric.needs_probabilities])
def test_class_indices_give_the_value_of_their_probabilities(objective: str) -> None:
    probabilities, labels = sample(100, 4, 7)
    from_classes = score(objective, probabilities.argmax(axis=1), labels, num_classes=4)
    assert from_classes == score(objective, probabilities, labels) == all_metrics(probabilities, labels)[objective]


@pytest.mark.parametrize(
    ("objective", "predictions", "labels"),
    [("typo", [0, 1], [0, 1]), ("accuracy", [0, 1], [0]), ("accuracy", [], []), ("accuracy", [0, 4], [0, 1])],
)
def test_wrong_input_raises_value_error(objective: str, predictions: list[int], labels: list[int]) -> None:
    with pytest.raises(ValueError):
        score(objective, np.array(predictions, int), np.array(labels, int), num_classes=3)


def test_confusion_counts_true_classes_in_rows() -> None:
    assert confusion([1, 1, 0], [0, 1, 0], 3).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_only_losses_are_minimized() -> None:
    assert {name for name in METRICS if direction(name) == "minimize"} == {"log_loss", "calibration_error"}


def test_every_objective_a_study_file_may_name_is_a_metric() -> None:
    assert set(OBJECTIVES) <= set(METRICS)
    for name in METRICS:
        if name in OBJECTIVES:
            assert StudyConfig.model_validate({"search": {"backbone": "resnet18"}, "objective": name}).objective == name
        else:
            with pytest.raises(ValueError):
                StudyConfig.model_validate({"search": {"backbone": "resnet18"}, "objective": name})


def test_all_metrics_of_a_thousand_images_take_milliseconds() -> None:
    probabilities, labels = sample(1000, 12, 0)
    times = []
    for _ in range(10):
        start = time.perf_counter()
        all_metrics(probabilities, labels)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.005
