"""A winner whose validation score still rises at its last epochs was not trained to the end."""

from __future__ import annotations

import dataclasses

import pytest

from harness.analysis.training_end import Rise, still_rising
from harness.config.trial import TrialConfig
from harness.results.metrics import METRICS
from harness.results.records import EpochRecord, TrialJob, TrialRecord

CONFIG = TrialConfig("fine_tuning", "resnet18", 3, 3e-4, 3e-5, batchnorm="fixed_stats", epochs=8)


def run(seed: int, scores: list[float], objective: str = "accuracy", epochs: int = 8) -> TrialRecord:
    config = dataclasses.replace(CONFIG, epochs=epochs)
    curve = tuple(EpochRecord(n, 0.5, {objective: score}, 3e-4, 3e-5, 1.0) for n, score in enumerate(scores, 1))
    job = TrialJob(f"confirmation/fine_tuning/x/{seed}", "confirmation", "fine_tuning", seed, config, seed, "split")
    return TrialRecord(
        job=job,
        state="complete",
        reason=None,
        epochs=curve,
        best_epoch=len(scores),
        score=scores[-1],
        seconds_alone=1.0,
        trainable_parameters=1,
        total_parameters=2,
        device="cpu",
        started_at="2026-01-01T00:00:00+00:00",
    )


def test_a_rise_beyond_its_spread_is_found_over_the_last_quarter() -> None:
    curves = [[0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, top] for top in (0.80, 0.82, 0.84)]
    found = still_rising([run(seed, curve) for seed, curve in enumerate(curves)], "accuracy")
    assert found == Rise(pytest.approx(0.12), 2, 8)


@pytest.mark.parametrize("ends", [(0.70, 0.70, 0.70), (0.60, 0.70, 0.80), (0.60, 0.62, 0.64)])
def test_level_wavering_and_falling_curves_are_not_rising(ends: tuple[float, ...]) -> None:
    runs = [run(seed, [0.2, 0.4, 0.6, 0.65, 0.68, 0.7, 0.7, end]) for seed, end in enumerate(ends)]
    assert still_rising(runs, "accuracy") is None


def test_a_falling_loss_rises() -> None:
    assert METRICS["log_loss"].direction == "minimize"
    curves = [[2.0, 1.8, 1.6, 1.4, 1.2, 1.0, 0.9, end] for end in (0.80, 0.81)]
    found = still_rising([run(seed, curve, "log_loss") for seed, curve in enumerate(curves)], "log_loss")
    assert found is not None and found.gain == pytest.approx(0.195)


def test_runs_that_ended_early_and_single_runs_say_nothing() -> None:
    rising = [0.1 * n for n in range(1, 9)]
    assert still_rising([run(0, rising)], "accuracy") is None
    assert still_rising([run(0, rising[:5]), run(1, rising[:5])], "accuracy") is None
    assert still_rising([run(0, [0.5], epochs=1), run(1, [0.6], epochs=1)], "accuracy") is None
