"""The benchmark's two sides do the same work: equal losses, and controls that are caught."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_study import draw_images

from harness.benchmarks import bound, throughput
from harness.benchmarks.baseline_loop import BaselineLoop, Files
from harness.benchmarks.bookkeeping import bookkeeping
from harness.benchmarks.bound import PassTimer, distinct, single_trial
from harness.benchmarks.negative_controls import all_caught
from harness.benchmarks.report_size import measure_report
from harness.benchmarks.sweep import MIXES, Stratum, ratio
from harness.benchmarks.task import DEPTHS, TRIALS, config_of, temporary_home
from harness.benchmarks.worker_costs import worker_seconds
from harness.config.fit import Fit
from harness.config.initial_weights import WeightsChoice
from harness.data.sources import rendered_cells
from harness.results.events import read_events
from harness.results.names import SEARCH_SPLIT
from harness.results.paths import StudyFolder
from harness.results.records import TrialJob
from harness.results.study_state import StudyState
from harness.study.executors.base import WorkerContext
from harness.training.frozen_features.worker_cache import CachedFeatures, Plan, cache_key
from harness.training.trial import run_trial
from harness.training.trial_data import TrialData

CPU = torch.device("cpu")
# MLflow's first import in a process warns of what SQLAlchemy will drop; here it is the hand-written loop's own import.
pytestmark = pytest.mark.filterwarnings("ignore:.*noload.*:DeprecationWarning")


@pytest.fixture(scope="module")
def cells() -> rendered_cells.RenderedCells:
    return rendered_cells.render(seed=1, slides=7)


@pytest.fixture(scope="module")
def files(cells: rendered_cells.RenderedCells, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Image files that no test changes: two batches to train on, and three quarters of one to score."""
    paths = []
    for number, image in enumerate(cells.images):
        path = tmp_path_factory.getbasetemp() / f"bench_{number}.png"
        Image.fromarray(image).save(path)
        paths.append(path)
    rows = np.arange(len(paths))
    keys = rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    labels = cells.labels.astype(np.int64)
    return Files(tuple(paths), labels, keys, rows[:64], rows[64:88], len(cells.classes))


@pytest.fixture
def data(cells: rendered_cells.RenderedCells, files: Files) -> TrialData:
    return TrialData(
        cells.images.copy(), files.labels, files.keys, files.train, files.validation, tuple(cells.classes), "bench"
    )


@pytest.fixture
def store(empty_database: Path, tmp_path: Path) -> str:
    """The address of an MLflow database of this test, whose tables are there."""
    return f"sqlite:///{shutil.copyfile(empty_database, tmp_path / 'plain.db')}"


def fewer(data: TrialData) -> TrialData:
    """One batch to train on, and half of one to score."""
    return dataclasses.replace(data, train=data.train[:32], validation=data.validation[:16])


@pytest.mark.parametrize(
    ("recipe", "depth", "workers"),
    [("flips", 0, 0), ("flips", 2, 2), pytest.param("none", 5, 0, marks=pytest.mark.slow)],
)
def test_the_plain_loop_has_the_harness_s_losses(
    files: Files, data: TrialData, store: str, recipe: str, depth: int, workers: int
) -> None:
    config = config_of(recipe, depth, epochs=2)
    seconds, losses = BaselineLoop(files, store, workers).train(config, seed=3)
    job = TrialJob("x/0", "search", config.strategy, 0, config, 3, "search")
    record = run_trial(job, data, lambda epoch: True, objective="accuracy", weights_name="bundled", device=CPU)
    assert losses == [epoch.train_loss for epoch in record.epochs]
    assert seconds > 0


def test_every_negative_control_is_caught(data: TrialData, tmp_path: Path) -> None:
    assert all_caught(data, config_of("none", 0), tmp_path, CPU) == {
        "flipped_byte": True,
        "prefix_train_mode": True,
        "other_seed": True,
    }


def test_a_mix_counts_shared_work_once() -> None:
    strata = {d: Stratum("none", "exact", d, [10.0], 1.0, 5.0 if d == 0 else 0.0, True, None) for d in TRIALS}
    assert ratio(strata, {0: 60}) == pytest.approx(600 / 65)
    assert ratio(strata, MIXES["uniform"]) == pytest.approx(600 / 65)


def test_mixes_hold_sixty_trials() -> None:
    assert {sum(counts.values()) for counts in MIXES.values()} == {60}


@pytest.mark.parametrize("before", [0, 60])
def test_bookkeeping_runs_the_search_itself_on_made_up_trials(tmp_path: Path, before: int) -> None:
    images = draw_images(tmp_path / "cells")
    assert 0 < bookkeeping(images, trials=8, before=before) < 10
    name = f"bookkeeping-{8 + before}"
    found = StudyState.of(read_events(StudyFolder(name).events)).records
    assert len(found) == 8 + before
    assert [record.slot for record in found] == [slot for slot in range((8 + before) // 2) for _ in range(2)]
    assert not StudyFolder(name).optuna_log.exists()  # which follows behind, in a study


def test_mixed_arithmetic_of_the_plain_loop_is_near_its_float32(files: Files, store: str) -> None:
    config = dataclasses.replace(config_of("none", 0), epochs=1)  # without AVX512 or AMX bfloat16 crawls
    _, exact = BaselineLoop(files, store, 0).train(config, seed=3)
    _, mixed = BaselineLoop(files, store, 0, mixed=True).train(config, seed=3)
    assert mixed != exact
    assert mixed == pytest.approx(exact, rel=0.05)


def test_a_raw_loop_and_a_trial_are_timed_in_turn(data: TrialData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bound, "EPOCHS", 1)
    raw, ours = single_trial(fewer(data), CPU, times=1)
    assert len(raw) == len(ours) == 1
    assert min(raw + ours) > 0


def test_the_bound_shrinks_with_what_trains_and_with_views(data: TrialData) -> None:
    bare = PassTimer(fewer(data), CPU)
    bare.time_once()
    naive = dict.fromkeys(DEPTHS, 10.0)
    assert bare.bound("none", naive, {0: 60}, 2) > bare.bound("none", naive, {5: 60}, 2) > 0
    assert bare.bound("none", naive, {0: 60}, 4) > bare.bound("flips", naive, {0: 60}, 4)


def test_distinct_views_are_those_that_trials_show(data: TrialData) -> None:
    plain = distinct(data, config_of("none", 0, epochs=3))
    assert plain == len(data.train) + len(data.validation)
    assert plain < distinct(data, config_of("flips", 0, epochs=3)) < 3 * len(data.train) + len(data.validation)


def test_throughput_counts_images(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(throughput, "BACKBONES", ("mobilenet_v3_small",))
    monkeypatch.setattr(throughput, "BATCHES", (4,))
    monkeypatch.setattr(throughput, "STEPS", 1)
    monkeypatch.setattr(throughput.images_a_second, "__kwdefaults__", {"side": 32, "steps": 1})
    rows = throughput.table(CPU, told.append)
    assert [(row["batch"], row["arithmetic"]) for row in rows] == [(4, "float32"), (4, "bfloat16 channels_last")]
    assert all(row["images_s"] > 0 for row in rows)
    assert len(told) == 2


def test_a_worker_s_first_epoch_and_its_next_are_timed(files: Files, data: TrialData, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", data.images)
    facts = cache_key(config_of("none", 0), SEARCH_SPLIT, random_weights=False)
    context = WorkerContext(
        {Fit(64): tmp_path / "images.npy"},
        64,
        files.labels,
        files.keys,
        {SEARCH_SPLIT: (files.train, files.validation)},
        data.classes,
        "accuracy",
        WeightsChoice.read("bundled"),
        1,
        tmp_path,
        Plan(tmp_path / "prefix", (CachedFeatures(*facts, cuts=(5,)),)),
    )
    first, following = worker_seconds(context, "cpu", trials=3)
    assert first > following > 0


def test_a_large_report_is_made_in_a_process_of_its_own(tmp_path: Path) -> None:
    with temporary_home(tmp_path):
        found = measure_report(trials=40, epochs=3)
        assert (tmp_path / "reports" / "ten-thousand" / "index.html").exists()
    assert 0 < found["slowest_figure_seconds"] < found["figures_seconds"] < found["seconds"]
    assert 0 < found["megabytes"] < 5
    assert found["memory_mb"] > 50
