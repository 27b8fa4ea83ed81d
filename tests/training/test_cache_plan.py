"""What is kept of frozen work: the budget, the choice, and room for it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from harness.config.load import parse
from harness.training.frozen_features.cache_plan import Sizes, cut_bytes, default_budget, make_plan
from harness.training.frozen_features.eviction import evict, pinned
from harness.training.frozen_features.worker_cache import Plan

SIZES = Sizes(train=800, validation=200)
GB = 10**9


def planned(folder: Path, budget: int = GB, **study: Any) -> Plan:
    values = {"data": {"image_size": 64}, "augmentation": "none", "batch_size": 64} | study
    return make_plan(parse(values, "test"), SIZES, folder, budget)


def test_bytes_behind_each_stage_are_those_of_the_built_model() -> None:
    assert cut_bytes("resnet18", 64) == tuple(
        4 * n for n in (64 * 16 * 16, 64 * 16 * 16, 128 * 8 * 8, 256 * 4 * 4, 512)
    )


def test_the_cuts_that_trials_will_read_are_kept(tmp_path: Path) -> None:
    plan = planned(tmp_path, search={"unfreeze_depth": [1, 2, 5]})
    (kept,) = plan.kept
    assert kept.key == ("resnet18", 64, "flips", None, False, "default")
    assert kept.cuts == (3, 4, 5)  # depth 2, depth 1, the head; depth 5 has nothing to share
    rows = 800 + 200
    assert plan.bytes == 4 * rows * (128 * 8 * 8 + 256 * 4 * 4 + 512)


def test_a_cut_larger_than_three_images_is_left_out_with_its_size(tmp_path: Path) -> None:
    plan = planned(tmp_path, search={"unfreeze_depth": [3]})
    assert plan.kept[0].cuts == (5,)
    assert "take 5.3 times its own bytes" in plan.reason(plan.kept[0].key, 2)


def test_within_the_budget_what_saves_most_for_a_byte_comes_first(tmp_path: Path) -> None:
    search = {"unfreeze_depth": [1, 2]}
    whole = planned(tmp_path, search=search).bytes
    small = planned(tmp_path, budget=whole - 1, search=search)
    assert small.bytes < whole
    assert 5 in small.kept[0].cuts  # 2 kB an image spare the whole backbone
    assert "do not fit into cache_gb" in small.reason(small.kept[0].key, 3)
    nothing = planned(tmp_path, budget=0, search=search)
    assert nothing.kept == ()


def test_right_angles_count_as_the_views_that_will_be_drawn(tmp_path: Path) -> None:
    one = planned(tmp_path, strategies=["feature_extraction"])
    eight = planned(tmp_path, strategies=["feature_extraction"], augmentation="flips", epochs=100)
    assert eight.bytes == pytest.approx(one.bytes * (8 * 800 + 200) / 1000, rel=1e-3)


def test_views_without_end_are_kept_for_the_search_and_not_for_two_confirmations(tmp_path: Path) -> None:
    plan = planned(tmp_path, strategies=["feature_extraction"], augmentation="microscopy", trials=20)
    assert [(kept.views, kept.split) for kept in plan.kept if kept.split == "search"] == [("microscopy", "search")]


def test_what_no_trial_would_read_twice_is_not_kept(tmp_path: Path) -> None:
    plan = planned(
        tmp_path,
        strategies=["feature_extraction"],
        augmentation="microscopy",
        trials=1,
        confirmation={"top": 1, "seeds": 2},
    )
    assert all(kept.split != "search" for kept in plan.kept)


def test_recalibrated_statistics_are_activations_of_their_own(tmp_path: Path) -> None:
    plan = planned(tmp_path, search={"batchnorm": ["frozen", "recalibrated"], "unfreeze_depth": [1]})
    assert ("resnet18", 64, "flips", "search", True, "default") in [kept.key for kept in plan.kept]


def test_a_space_of_every_backbone_is_planned_in_a_moment(tmp_path: Path) -> None:
    plan = planned(
        tmp_path,
        augmentation=["none", "flips", "microscopy"],
        batch_size=[16, 32, 64],
        search={
            "backbone": ["resnet18", "mobilenet_v3_small", "squeezenet1_1"],
            "unfreeze_schedule": ["at_once", "head_first", "progressive"],
            "unfreeze_from": ["head", "stem"],
            "batchnorm": ["frozen", "fixed_stats", "updated_stats", "recalibrated", "train_mode"],
            "unfreeze_depth": {"low": 1, "high": 5},
        },
    )
    assert plan.bytes <= GB


def test_the_default_budget_is_a_share_of_what_is_free(tmp_path: Path) -> None:
    import shutil

    import psutil

    budget = default_budget(tmp_path)
    assert 0 < budget <= shutil.disk_usage(tmp_path).free / 4
    assert budget <= psutil.virtual_memory().available / 3


def entry(folder: Path, name: str, source: str, age: int) -> Path:
    path = folder / name
    path.mkdir(parents=True)
    (path / "cut5-view0.rows").write_bytes(bytes(100_000))
    (path / "meta.json").write_text(json.dumps({"identity": {"images": source}}))
    os.utime(path / "meta.json", (10_000 - age, 10_000 - age))
    return path


def test_what_was_unused_longest_goes_first_and_own_and_pinned_entries_stay(tmp_path: Path) -> None:
    own = entry(tmp_path, "own", "mine", age=500)
    pin = entry(tmp_path, "pinned", "theirs", age=400)
    old, new = entry(tmp_path, "old", "others", age=300), entry(tmp_path, "new", "others", age=100)
    with pinned(tmp_path, "their-study", ["theirs"]):
        removed = evict(tmp_path, ["mine"], planned=50_000, budget=200_000)
    assert not old.exists()
    assert own.exists()
    assert pin.exists()
    assert new.exists()
    assert removed >= 100_000
    assert not list((tmp_path / "pins").iterdir())


def test_the_pin_of_a_process_that_is_gone_holds_nothing(tmp_path: Path) -> None:
    gone = entry(tmp_path, "gone", "theirs", age=1)
    (tmp_path / "pins").mkdir()
    (tmp_path / "pins" / "dead.json").write_text(json.dumps({"pid": 2**22 + 1, "sources": ["theirs"]}))
    evict(tmp_path, ["mine"], planned=0, budget=0)
    assert not gone.exists()
