"""What comes after the verdict: added to a finished study, paired with its seeds, and changing nothing it said."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from canned_executor import Script
from finished_study import live_below
from small_study import Watching, World, draw_images, records, runs
from study_fixtures import enter

from harness.data.split import nested
from harness.errors import Interrupted
from harness.results.event_types import ControlledSelected, Explored, TestScored, VerdictReached
from harness.results.paths import home
from harness.results.records import TrialRecord
from harness.study import explore

ASKED = {"controlled": {"changes": 2, "seeds": 2}, "data_sizes": [0.5, 1.0], "shifts": ["brightness", "noise"]}


Asked = tuple[World, list[object], Watching]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Asked:
    """A study that finished, and was then asked for more: the world, its verdict before, what was seen after."""
    root = tmp_path_factory.mktemp("explored")
    with pytest.MonkeyPatch.context() as patch:
        enter(patch, Script())
        live_below(patch, root)
        shutil.copyfile(empty_database, home() / "mlflow.db")
        world = World(root, draw_images(root / "cells"), "canned")
        world.write()
        world.run()
        before = [*world.of(VerdictReached), *world.of(TestScored)]
        world.write(**ASKED)
        watching = Watching()
        world.run(watching=watching)
    return world, before, watching


@pytest.fixture
def explored(made: Asked, canned: Script, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """That study, with its home in place."""
    live_below(monkeypatch, made[0].root)
    return made


def of_kind(world: World, kind: str) -> list[TrialRecord]:
    return [record for record in records(world) if record.kind == kind]


def test_it_changes_no_verdict_and_no_earlier_score(explored: Asked) -> None:
    world, before, watching = explored
    assert [*world.of(VerdictReached), *world.of(TestScored)] == before
    assert {job.kind for job in watching.jobs} == {"controlled", "data_size"}


def test_a_changed_choice_shares_the_winners_seeds(explored: Asked) -> None:
    world, _, watching = explored
    selected = world.of(ControlledSelected)[-1]
    trained = of_kind(world, "controlled")
    assert len(trained) == sum(len(entries) for entries in selected.configs.values()) * 2
    confirmed = {(r.slot, r.strategy): r.seed for r in of_kind(world, "confirmation")}
    splits = {job.slot: job.split for job in watching.jobs if job.kind == "controlled"}
    assert splits == {0: "confirmation/0", 1: "confirmation/1"}
    for record in trained:
        assert record.state == "complete"
        assert record.seed == confirmed[record.slot, record.strategy]
        assert record.config in [entry.config for entry in selected.configs[record.strategy]]


def test_a_part_of_the_data_is_trained_on_and_scored_on_the_same_test_images(explored: Asked) -> None:
    world, _, watching = explored
    trained = of_kind(world, "data_size")
    assert len(trained) == 2 * 2, "two strategies, two seeds; all of the data is what the confirmation trained on"
    answers = [one for one in world.of(Explored) if one.what == "data_size"]
    assert len(answers) == len(trained)
    scored = {scored.predictions for scored in world.of(TestScored)}
    for answer in answers:
        path = world.folder().predictions / answer.predictions
        whole = world.folder().predictions / f"{answer.strategy}-{answer.config_key}-{answer.seed_index}.npz"
        assert whole.name in scored
        with np.load(path) as part, np.load(whole) as full:
            assert np.array_equal(part["rows"], full["rows"])
            assert not np.array_equal(part["probabilities"], full["probabilities"])
        assert 0 < (answer.train_images or 0) < 60
    assert {job.split for job in watching.jobs if job.kind == "data_size"} == {
        "confirmation/0@0.5",
        "confirmation/1@0.5",
    }


def test_shifted_copies_are_answered_by_the_confirmed_models(explored: Asked) -> None:
    world, _, _ = explored
    answers = [one for one in world.of(Explored) if one.what == "shift"]
    assert len(answers) == 2 * 2 * 2
    for answer in answers:
        whole = f"{answer.strategy}-{answer.config_key}-{answer.seed_index}"
        with (
            np.load(world.folder().predictions / answer.predictions) as part,
            np.load(world.folder().predictions / f"{whole}.npz") as full,
        ):
            assert np.array_equal(part["labels"], full["labels"])
            assert part["probabilities"].shape == full["probabilities"].shape
    assert {answer.shift for answer in answers} == {"brightness", "noise"}


def test_mlflow_names_what_was_explored(explored: Asked) -> None:
    world, _, _ = explored
    names = {run.info.run_name for run in runs("tiny", "data_size")}
    assert "data size 0.5 · fine_tuning · seed 1" in names
    assert all(run.info.run_name.startswith("controlled · ") for run in runs("tiny", "controlled"))
    assert len(runs("tiny", "controlled")) == len(of_kind(world, "controlled"))


def test_asked_again_it_trains_nothing(explored: Asked) -> None:
    world, _, _ = explored
    watching = Watching()
    assert world.run(watching=watching).already_finished
    assert watching.jobs == []


def test_stopped_in_the_middle_it_goes_on_where_it_was(canned_world: World) -> None:
    canned_world.write(trials=1, data_sizes=[0.5])

    def stop_at_second(job: object, record: object) -> None:
        if sum(j.kind == "data_size" for j in watching.jobs) == 2:
            raise Interrupted("stopped by the test", 2)

    watching = Watching(on_epoch=stop_at_second)
    with pytest.raises(Interrupted):
        canned_world.run(watching=watching)
    assert len(of_kind(canned_world, "data_size")) == 1
    again = Watching()
    canned_world.run(watching=again)
    assert len(of_kind(canned_world, "data_size")) == 4
    assert {job.kind for job in again.jobs} == {"data_size"}
    assert len(again.jobs) == 3
    assert len(canned_world.of(Explored)) == 4


def test_without_time_left_it_is_left_out_and_says_so(canned_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour passes behind the verdict."""
    monkeypatch.setattr(explore, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 3600))
    canned_world.write(trials=1, data_sizes=[0.5], time="30m")
    watching = Watching()
    canned_world.run(watching=watching)
    assert canned_world.of(VerdictReached)
    assert of_kind(canned_world, "data_size") == []
    assert any("time is used up" in text for text in watching.texts)
    assert canned_world.run().already_finished


def test_a_smaller_fraction_is_a_part_of_a_larger_one() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 3])
    parts = {f: nested(labels, f, seed=5) for f in (0.1, 0.25, 0.5, 1.0)}
    for small, large in ((0.1, 0.25), (0.25, 0.5), (0.5, 1.0)):
        assert set(parts[small]) < set(parts[large])
    assert np.bincount(labels[parts[0.1]]).tolist() == [6, 3, 1]
    assert np.array_equal(parts[1.0], np.arange(93))
    assert not np.array_equal(nested(labels, 0.25, seed=6), parts[0.25])
