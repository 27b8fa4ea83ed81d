"""What pruning saves and costs, replayed on curves whose answer is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from harness.benchmarks import pruning
from harness.benchmarks.pruning import Curve, exhaustive, halving, median, one_epoch, percentile, replay
from harness.errors import ConfigError

EPOCHS = 8


def curve(depth: int, final: float, *, early: float | None = None, seconds: float = 1.0) -> Curve:
    """Rises from `early` (half of its final score where missing) to `final`."""
    scores = np.linspace(final / 2 if early is None else early, final, EPOCHS).tolist()
    return Curve(depth, {}, scores, [seconds] * EPOCHS, 0.5, scores[0], seconds)


def pool(finals: Sequence[float]) -> list[Curve]:
    return [curve(0, final) for final in finals]


def test_the_exhaustive_run_finds_the_best_and_pays_for_all() -> None:
    outcome = exhaustive(pool([0.3, 0.9, 0.5]), [2, 0, 1], EPOCHS)
    assert (outcome.winner, outcome.epochs) == (1, 3 * EPOCHS)
    assert outcome.seconds == pytest.approx(3 * (EPOCHS + 0.5))


def test_the_median_stops_bad_trials_and_keeps_the_best() -> None:
    finals = np.linspace(0.9, 0.2, 30).tolist()
    outcome = median(pool(finals), range(30), EPOCHS)
    assert outcome.winner == 0
    assert outcome.epochs < 0.7 * 30 * EPOCHS
    assert outcome.seconds == pytest.approx(outcome.epochs + 30 * 0.5)


def test_the_median_is_each_strategy_s_own() -> None:
    """A weak strategy is not stopped by a strong one: all its trials are equal, and none lies below its median."""
    curves = [curve(0, 0.2) for _ in range(20)] + [curve(1, 0.9) for _ in range(20)]
    order = [index for pair in zip(range(20), range(20, 40), strict=True) for index in pair]
    assert median(curves, order, EPOCHS).epochs == 40 * EPOCHS


def test_harder_ways_train_less_than_the_median() -> None:
    curves, order = pool(np.linspace(0.2, 0.9, 30).tolist()), np.random.default_rng(0).permutation(30).tolist()
    shares = [way(curves, order, EPOCHS).epochs for way in (exhaustive, median, percentile, halving)]
    assert shares[0] > shares[1] > max(shares[2:])


def test_one_epoch_takes_a_quick_starter_for_the_winner() -> None:
    curves = [curve(0, 0.9, early=0.1), curve(0, 0.6, early=0.5)]
    outcome = one_epoch(curves, [0, 1], EPOCHS)
    assert (outcome.winner, outcome.epochs) == (1, 2 + EPOCHS)


def test_a_replay_tells_what_each_way_loses_and_gains() -> None:
    curves = [curve(0, 0.9, early=0.1)] + [curve(0, 0.6 - 0.01 * i, early=0.3 - 0.01 * i) for i in range(19)]
    told = replay(curves, {0: 20}, EPOCHS, shared=4.0, baseline={0: 17.0}, spread=0.05, orders=10)
    assert told["exhaustive"]["loss"] == 0
    assert told["exhaustive"]["within_spread"] == 1
    assert told["exhaustive"]["speed_up"] == pytest.approx(20 * 17 / (20 * (EPOCHS + 0.5) + 4))
    assert told["one epoch"]["loss"] == pytest.approx(0.3)
    assert told["one epoch"]["within_spread"] == 0
    assert told["median"]["epochs_share"] < 1


def test_a_study_of_all_channels_is_refused_before_its_images_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "stacks.yaml").write_text("data: {source: {folder: nowhere}, channels: all}\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"reads RGB files, but the study stacks sets data\.channels: all"):
        pruning.run(lambda text: None, "stacks", None)
