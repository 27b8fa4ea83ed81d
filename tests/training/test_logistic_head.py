"""The logistic head is the optimum of a logistic regression, and otherwise a trial like any other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sharing import assert_equal, plan_for
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from harness.config.trial import TrialConfig, canonical
from harness.errors import DivergedError
from harness.model.transfer import build
from harness.results.records import TrialJob, TrialRecord
from harness.training.frozen_features.worker_cache import WorkerCache
from harness.training.logistic_head import PATIENCE, STRENGTHS, solve, write
from harness.training.logistic_path import LogisticPath
from harness.training.loop import predict_images
from harness.training.trial import restore
from harness.training.trial_data import TrialData

Run = Callable[..., tuple[TrialRecord, dict[str, torch.Tensor]]]
CPU = torch.device("cpu")
CONFIG = canonical(
    TrialConfig(
        "feature_extraction",
        "mobilenet_v3_small",
        0,
        1e-3,
        None,
        head_solver="logistic",
        batch_size=8,
        epochs=4,
        augmentation="none",
    )
)


def drawn(classes: int, seed: int = 0) -> tuple[Any, Any, Any, Any]:
    """Training and validation features of overlapping classes, some features far larger than others."""
    rng = np.random.default_rng(seed)
    labels = np.arange(240) % classes
    features = (rng.normal(size=(240, 12)) + 1.2 * rng.normal(size=(classes, 12))[labels]) * np.logspace(-2, 2, 12)
    features = features.astype(np.float32)
    return features[:160], labels[:160], features[160:], labels[160:]


def softmax(logits: Any) -> Any:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 4])
def test_it_is_the_optimum_that_scikit_learn_finds(classes: int) -> None:
    features, labels, validation, truth = drawn(classes)
    found = solve(features, labels, validation, truth, CONFIG, classes, "log_loss")
    assert found.l2 in STRENGTHS
    scaler = StandardScaler().fit(features.astype(np.float64))
    both = 2 if classes == 2 else 1  # of two classes scikit-learn penalises only the difference
    known = LogisticRegression(C=both / (found.l2 * len(labels)), tol=1e-8, max_iter=5000)
    known.fit(scaler.transform(features), labels)
    expected = known.predict_proba(scaler.transform(validation))
    assert softmax(validation @ found.weight.T + found.bias) == pytest.approx(
        expected, abs=5e-3
    )  # it ends at a millionth


def test_the_strength_is_the_best_on_validation_and_the_stronger_of_equal_ones() -> None:
    features, labels, validation, truth = drawn(4)
    found = solve(features, labels, validation, truth, CONFIG, 4, "log_loss")
    assert min(STRENGTHS) < found.l2 < max(STRENGTHS)  # overlapping classes: neither end is the best
    apart = 100 * np.eye(4)[labels].astype(np.float32)
    easy = solve(apart, labels, 100 * np.eye(4)[truth].astype(np.float32), truth, CONFIG, 4, "accuracy")
    assert easy.l2 == max(STRENGTHS)


def test_correlated_features_are_solved_almost_as_far_as_scikit_learn_does_at_its_narrowest() -> None:
    features, labels, _, _ = drawn(3)
    rng = np.random.default_rng(1)
    correlated = (features[:, :1] + 1e-2 * rng.normal(size=(160, 8)) * features.std(axis=0)[:8]).astype(np.float32)
    importance = rng.uniform(0.5, 2, size=160)
    scaler = StandardScaler().fit(correlated.astype(np.float64))
    standard = scaler.transform(correlated)

    def objective(weight: Any, bias: Any, l2: float) -> float:
        own = softmax(standard @ weight.T + bias)[np.arange(160), labels]
        return float(-(importance * np.log(own)).mean() + l2 * (weight**2).sum() / 2)

    path = LogisticPath(correlated, labels, importance)
    for l2 in (1.0, 1e-2, 1e-4):
        weight, bias = path.at(l2)
        known = LogisticRegression(C=1 / (l2 * 160), tol=1e-9, max_iter=20_000)
        known.fit(standard, labels, sample_weight=importance)
        least = objective(known.coef_, known.intercept_, l2)
        assert objective(weight * scaler.scale_, bias + weight @ scaler.mean_, l2) <= least * (1 + 1e-4)


def test_strong_penalties_that_score_alike_do_not_end_the_path() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [1140, 60])
    features = (rng.normal(size=(1200, 2)) + 1.5 * labels[:, None]).astype(np.float32)
    order = rng.permutation(1200)
    (train, rest), truth = (features[order[:800]], features[order[800:]]), labels[order[800:]]
    found = solve(train, labels[order[:800]], rest, truth, CONFIG, 2, "balanced_accuracy")
    assert found.l2 < STRENGTHS[2]  # with the first three, every answer is the frequent class


def test_the_path_ends_where_validation_becomes_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    at = LogisticPath.at
    monkeypatch.setattr(LogisticPath, "at", lambda self, l2: asked.append(l2) or at(self, l2))
    features, labels, validation, truth = drawn(4)
    found = solve(features, labels, validation, truth, CONFIG, 4, "log_loss")
    best = STRENGTHS.index(found.l2)
    assert asked == list(STRENGTHS[: best + 1 + PATIENCE])


def test_a_class_without_a_training_image_is_never_the_answer() -> None:
    features, labels, validation, truth = drawn(3)
    kept = labels != 1
    found = solve(features[kept], labels[kept], validation, truth, CONFIG, 3, "accuracy")
    assert found.weight.shape == (3, 12)
    assert not (softmax(validation @ found.weight.T + found.bias).argmax(axis=1) == 1).any()


def test_class_weights_help_the_rare_class() -> None:
    features, labels, validation, truth = drawn(2)
    rare = np.concatenate([np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)[:8]])
    weighted = dataclasses.replace(CONFIG, imbalance="weighted_loss")
    plain, helped = (
        solve(features[rare], labels[rare], validation, truth, config, 2, "log_loss") for config in (CONFIG, weighted)
    )
    found = [softmax(validation @ s.weight.T + s.bias)[:, 1].mean() for s in (plain, helped)]
    assert found[1] > found[0]


def test_what_cannot_be_solved_diverges_in_words() -> None:
    features, labels, validation, truth = drawn(2)
    with pytest.raises(DivergedError, match="two classes or more"):
        solve(features, np.zeros_like(labels), validation, truth, CONFIG, 2, "accuracy")
    features[3, 2] = np.inf
    with pytest.raises(DivergedError, match="not finite"):
        solve(features, labels, validation, truth, CONFIG, 2, "accuracy")


@pytest.mark.parametrize("backbone", ["mobilenet_v3_small", "squeezenet1_1", "resnet18"])
def test_the_weights_go_into_the_head_as_they_are(backbone: str) -> None:
    model = build(backbone, 3, image_size=32).eval()
    images = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        features = model.features(images)
        pooled = features.flatten(2).mean(dim=2) if features.ndim == 4 else features
        rng = np.random.default_rng(0)
        weight, bias = rng.normal(size=(3, pooled.shape[1])), rng.normal(size=3)
        write(model, dataclasses.make_dataclass("S", ["weight", "bias"])(weight, bias))
        assert model(images).numpy() == pytest.approx(pooled.numpy() @ weight.T + bias, abs=1e-3)


@pytest.mark.parametrize("augmentation", ["none", "flips"])
def test_a_trial_has_one_record_and_its_checkpoint_gives_its_score(
    data: TrialData, run: Run, tmp_path: Path, augmentation: Any
) -> None:
    config = dataclasses.replace(CONFIG, augmentation=augmentation)
    record, tensors = run(config)
    assert [epoch.epoch for epoch in record.epochs] == [config.epochs]
    assert record.best_epoch == config.epochs
    assert record.l2 in STRENGTHS
    assert set(tensors) == {"head.weight", "head.bias"}
    assert TrialRecord.from_json(record.to_json()) == record
    job = TrialJob("x/0", "search", "feature_extraction", 0, config, 0, "search")
    model = restore(job, data, "none", CPU, tmp_path / "best.safetensors")
    answers = predict_images(model, data, data.validation, 8, CPU).argmax(axis=1)
    right = [np.mean(answers[data.labels[data.validation] == k] == k) for k in range(3)]
    assert np.mean(right) == pytest.approx(record.score)


def test_the_same_job_gives_the_same_bits(run: Run) -> None:
    assert_equal(run(CONFIG), run(CONFIG))


@pytest.mark.parametrize("augmentation", ["none", "flips"])
def test_shared_activations_change_no_bit(run: Run, tmp_path: Path, augmentation: Any, data: TrialData) -> None:
    config = dataclasses.replace(CONFIG, augmentation=augmentation)
    source = dataclasses.replace(data, source="drawn")
    alone = run(config, data=source)
    shared = run(config, WorkerCache(plan_for(tmp_path / "cache", config)), data=source)
    assert shared[0].cache_reason is None
    assert_equal(alone, shared)


def test_it_beats_a_few_steps_of_an_optimizer(run: Run) -> None:
    steps = canonical(dataclasses.replace(CONFIG, head_solver="adamw"))
    assert (run(CONFIG)[0].score or 0) > (run(steps)[0].score or 0)


def test_what_has_no_effect_beside_the_solver_takes_its_default() -> None:
    given = dataclasses.replace(
        CONFIG, head_lr=0.03, optimizer="sgd", weight_decay=0.1, ema=0.9, head="mlp", head_hidden=7, mixup=0.2
    )
    assert canonical(given) == CONFIG
    tuned = TrialConfig("fine_tuning", "resnet18", 3, 1e-3, 1e-4, head_solver="logistic", batchnorm="fixed_stats")
    assert canonical(tuned).head_solver == "adamw"
