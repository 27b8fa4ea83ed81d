"""The metrics are scikit-learn's numbers, and a small or one-sided sample still gives a number."""

from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sk

from harness.config.study import OBJECTIVES, StudyConfig
from harness.results.metrics import METRICS, all_metrics, confusion, direction, score


def sample(n: int, classes: int, seed: int, signal: float = 1.5) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, n, p=rng.dirichlet(np.ones(classes)))
    logits = rng.normal(size=(n, classes)) + signal * np.eye(classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities.astype(np.float32), labels


@pytest.mark.parametrize("seed", range(6))
def test_every_metric_is_scikit_learns(seed: int) -> None:
    probabilities, labels = sample(400, 5, seed)
    labels[:5] = np.arange(5)  # scikit-learn wants every class for AUROC
    predicted = probabilities.argmax(axis=1)
    got = all_metrics(probabilities, labels)
    assert got["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted))
    assert got["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, predicted))
    assert got["macro_f1"] == pytest.approx(sk.f1_score(labels, predicted, average="macro"))
    assert got["mcc"] == pytest.approx(sk.matthews_corrcoef(labels, predicted))
    rows = probabilities.astype(float)
    rows /= rows.sum(axis=1, keepdims=True)
    assert got["auroc"] == pytest.approx(sk.roc_auc_score(labels, rows, multi_class="ovr"), abs=1e-6)
    assert got["log_loss"] == pytest.approx(sk.log_loss(labels, rows), rel=1e-5)


def test_calibration_error_is_the_mean_gap_over_fifteen_bins() -> None:
    probabilities, labels = sample(500, 4, 1)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert all_metrics(probabilities, labels)["calibration_error"] == pytest.approx(expected, abs=1e-6)


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
