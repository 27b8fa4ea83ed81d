"""The benchmark's two sides do the same work: equal losses, and controls that are caught."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness.bench.controls import all_caught
from harness.bench.plain import Files, PlainLoop
from harness.bench.sweep import MIXES, TRIALS, Stratum, _config, _ratio, bookkeeping
from harness.data import rendered
from harness.training.inputs import TrialData
from harness.training.trial import TrialJob, run_trial

CPU = torch.device("cpu")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    cells = rendered.render(seed=1, slides=7)
    paths = []
    for number, image in enumerate(cells.images):
        path = tmp_path / f"{number}.png"
        Image.fromarray(image).save(path)
        paths.append(path)
    rows = np.arange(len(paths))
    keys = rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return Files(tuple(paths), cells.labels.astype(np.int64), keys, rows[:64], rows[64:], len(cells.classes))


@pytest.fixture
def data(files: Files) -> TrialData:
    cells = rendered.render(seed=1, slides=7)
    return TrialData(
        cells.images, files.labels, files.keys, files.train, files.validation, tuple(cells.classes), "bench"
    )


@pytest.mark.parametrize(("recipe", "depth", "workers"), [("flips", 0, 0), ("flips", 2, 2), ("none", 5, 0)])
def test_the_plain_loop_has_the_harness_s_losses(
    files: Files, data: TrialData, tmp_path: Path, recipe: str, depth: int, workers: int
) -> None:
    config = _config(recipe, depth)
    seconds, losses = PlainLoop(files, f"sqlite:///{tmp_path / 'plain.db'}", workers).train(config, seed=3)
    job = TrialJob("x/0", "search", config.strategy, 0, config, 3, "search")
    record = run_trial(
        job, data, lambda epoch: True, objective="accuracy", weights_name="bundled", device=CPU
    )  # fmt: skip
    assert losses == [epoch.train_loss for epoch in record.epochs]
    assert seconds > 0


def test_every_negative_control_is_caught(data: TrialData, tmp_path: Path) -> None:
    assert all_caught(data, _config("none", 0), tmp_path, CPU) == {
        "flipped_byte": True, "prefix_train_mode": True, "other_seed": True,
    }  # fmt: skip


def test_a_mix_counts_shared_work_once() -> None:
    strata = [Stratum("none", "exact", depth, [10.0], 1.0, 5.0 if depth == 0 else 0.0, True, None) for depth in TRIALS]
    assert _ratio(strata, "none", "exact", {0: 60}) == pytest.approx(600 / 65)
    assert _ratio(strata, "none", "exact", MIXES["uniform"]) == pytest.approx(600 / 65)


def test_mixes_hold_sixty_trials() -> None:
    assert {sum(counts.values()) for counts in MIXES.values()} == {60}


def test_bookkeeping_is_measured_with_a_sampler_that_has_something_to_learn() -> None:
    assert 0 < bookkeeping(trials=8) < 10
