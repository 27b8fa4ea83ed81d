from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.config.data import SplitConfig
from harness.data import split
from harness.errors import DataError

CONFIG = SplitConfig(validation=0.2, test=0.2)


def table_of(labels: Any, groups: Any = None, fixed: Any = None, pixels: Any = None) -> pd.DataFrame:
    n = len(labels)
    return pd.DataFrame(
        {
            "path": [f"{i}.png" for i in range(n)],
            "label": np.asarray(labels, dtype=np.int64),
            "group": [""] * n if groups is None else [str(group) for group in groups],
            "fixed_split": [""] * n if fixed is None else list(fixed),
            "pixels_sha256": [str(i) for i in range(n)] if pixels is None else [str(pixel) for pixel in pixels],
        }
    )


def grouped(seed: int = 0, n: int = 1200, groups: int = 60) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return table_of(random.choice(4, n, p=[0.5, 0.3, 0.15, 0.05]), groups=random.integers(0, groups, n))


def sizes(parts: Any) -> dict[str, int]:
    names, counts = np.unique(parts, return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


@pytest.mark.parametrize("seed", range(10))
def test_no_group_and_no_image_ever_straddles_two_parts(seed: int) -> None:
    random = np.random.default_rng(seed)
    table = grouped(seed)
    # copies of an image keep its label and may lie in another group
    for row in random.integers(0, len(table), 10):
        same = np.flatnonzero(table["label"] == table["label"][row])
        table.loc[random.choice(same), "pixels_sha256"] = table["pixels_sha256"][row]
    for parts in (split.draw(table, CONFIG, seed=seed), None):
        if parts is None:
            parts = split.redraw(table, split.draw(table, CONFIG, seed=seed), CONFIG, seed=seed + 1)
        assert (pd.Series(parts).groupby(table["group"]).nunique() == 1).all()
        assert (pd.Series(parts).groupby(table["pixels_sha256"]).nunique() == 1).all()


def test_the_same_seed_draws_the_same_split_and_another_seed_another() -> None:
    table = grouped()
    first = split.draw(table, CONFIG, seed=1)
    assert (split.draw(table, CONFIG, seed=1) == first).all()
    assert (split.draw(table, CONFIG, seed=2) != first).any()


def test_drawn_groups_come_near_the_sizes_and_class_proportions_asked_for() -> None:
    table = grouped()
    parts = split.draw(table, CONFIG, seed=0)
    shares = table["label"].value_counts(normalize=True)
    for part in ("validation", "test"):
        rows = table[parts == part]
        assert abs(len(rows) / len(table) - 0.2) < 0.02
        assert (rows["label"].value_counts(normalize=True) / shares - 1).abs().max() < 0.35


def test_single_images_are_drawn_in_the_exact_proportions_of_their_classes() -> None:
    table = table_of([0] * 500 + [1] * 100 + [2] * 10)
    parts = split.draw(table, CONFIG, seed=0)
    for part in ("validation", "test"):
        assert np.bincount(table["label"][parts == part]).tolist() == [100, 20, 2]


def independent_spread(table: pd.DataFrame, share: float) -> float:
    """Standard deviation of the overlap of plain random draws of groups (or of images, where there are none)."""
    random = np.random.default_rng(0)
    units, sizes_ = np.unique(table["group"] if table["group"].ne("").any() else table["path"], return_counts=True)
    drawn = np.zeros((60, len(units)))
    for row in drawn:
        order = random.permutation(len(units))
        row[order[np.cumsum(sizes_[order]) <= share * len(table)]] = 1
    overlap = (drawn * sizes_) @ drawn.T / (drawn @ sizes_)[:, None]
    return float(overlap[~np.eye(60, dtype=bool)].std())


@pytest.mark.parametrize("make", [grouped, lambda: table_of(np.arange(600) % 3)], ids=["groups", "images"])
def test_draws_of_different_seeds_overlap_no_more_than_independent_ones(make: Any) -> None:
    table = make()
    count = 40
    for name, draws in (
        ("test", [split.draw(table, CONFIG, seed=seed) for seed in range(count)]),
        (
            "validation",
            [split.redraw(table, split.draw(table, CONFIG, seed=0), CONFIG, seed=seed) for seed in range(count)],
        ),
    ):
        drawn = np.array([parts == name for parts in draws], dtype=float)
        pool = (draws[0] != "test").sum() if name == "validation" else len(table)
        expected = drawn.sum() / count / pool
        overlap = (drawn @ drawn.T / drawn.sum(axis=1))[~np.eye(count, dtype=bool)]
        assert abs(overlap.mean() - expected) < 0.03, name
        assert overlap.std() < 1.25 * independent_spread(
            table[draws[0] != "test"] if pool < len(table) else table, expected
        )


def test_redrawing_keeps_the_test_part_and_moves_the_rest() -> None:
    table = grouped()
    parts = split.draw(table, CONFIG, seed=0)
    again = split.redraw(table, parts, CONFIG, seed=5)
    assert ((again == "test") == (parts == "test")).all()
    moved = ((again == "validation") & (parts == "train")).sum()
    assert moved > 100 and abs(sizes(again)["validation"] - sizes(parts)["validation"]) < 30


def test_redrawing_leaves_unused_images_unused() -> None:
    table = grouped()
    parts = split.limit(table, split.draw(table, CONFIG, seed=0), 400, seed=0)
    again = split.redraw(table, parts, CONFIG, seed=5)
    assert ((again == "unused") == (parts == "unused")).all() and (again != parts).any()


def test_a_fixed_validation_part_is_never_redrawn() -> None:
    table = table_of([0, 1] * 30, fixed=["train"] * 40 + ["validation"] * 20)
    parts = split.draw(table, CONFIG, seed=0)
    assert (parts[40:] == "validation").all() and 10 <= (parts == "test").sum() <= 14
    assert (split.redraw(table, parts, CONFIG, seed=9) == parts).all()


def test_with_train_and_test_given_validation_is_drawn_from_train() -> None:
    table = table_of([0, 1] * 50, fixed=["train"] * 80 + ["test"] * 20)
    parts = split.draw(table, CONFIG, seed=0)
    assert sizes(parts) == {"test": 20, "train": 60, "validation": 20}
    assert (parts[80:] == "test").all()


def test_images_without_a_part_are_drawn_and_the_fixed_ones_stay() -> None:
    fixed = ["train"] * 20 + ["test"] * 20 + [""] * 60
    table = table_of([0, 1] * 50, fixed=fixed)
    parts = split.draw(table, CONFIG, seed=0)
    assert (parts[:20] == "train").all() and (parts[20:40] == "test").all()
    assert sizes(parts[40:]) == {"train": 40, "validation": 20}
    again = split.redraw(table, parts, CONFIG, seed=1)
    assert (again[:40] == parts[:40]).all() and (again != parts).any()


def test_all_three_parts_given_are_taken_as_they_are() -> None:
    fixed = ["train", "train", "validation", "validation", "test", "test"] * 4
    table = table_of([0] * 12 + [1] * 12, fixed=fixed)
    assert split.draw(table, CONFIG, seed=0).tolist() == fixed


def test_a_group_in_two_fixed_parts_is_refused_by_name() -> None:
    table = table_of(
        [0, 1] * 20, groups=["p7"] + [f"q{i}" for i in range(38)] + ["p7"], fixed=["train"] * 20 + ["test"] * 20
    )
    with pytest.raises(DataError, match=r"1 groups(.|\n)*p7"):
        split.draw(table, CONFIG, seed=0)


def test_a_copy_in_two_fixed_parts_is_refused_or_trained_on() -> None:
    pixels = [*range(39), 0]
    table = table_of([0, 1] * 19 + [0, 0], fixed=["train"] * 20 + ["test"] * 20, pixels=pixels)
    with pytest.raises(DataError, match=r"0\.png(.|\n)*39\.png"):
        split.draw(table, CONFIG, seed=0)
    for seed in range(10):
        parts = split.draw(table, CONFIG, seed=seed, dedupe="train")
        again = split.redraw(table, parts, CONFIG, seed=seed + 1)
        for drawn in (parts, again):
            assert drawn[0] == drawn[39] == "train" and (drawn[20:39] == "test").all()


def test_too_few_groups_for_three_parts_say_how_to_go_on() -> None:
    with pytest.raises(
        DataError, match=r"at least 3 groups, but there are 2: use a data.split.group with smaller groups"
    ):
        split.draw(table_of([0, 1] * 20, groups=["a", "b"] * 20), CONFIG, seed=0)


def test_three_groups_are_enough_for_three_parts() -> None:
    table = table_of([0, 1] * 30, groups=np.repeat(["a", "b", "c"], 20))
    assert set(split.draw(table, CONFIG, seed=0)) == {"train", "validation", "test"}


def test_a_class_with_too_few_images_is_named_with_its_counts() -> None:
    with pytest.raises(DataError, match=r"class rare: .* \(4 images\)"):
        split.draw(table_of([0] * 50 + [1] * 4), CONFIG, seed=0, classes=("common", "rare"))
    table = table_of([0] * 90 + [1] * 10, groups=[*(i % 30 for i in range(90)), *[30] * 5, *[31] * 5])
    with pytest.raises(DataError, match=r"class rare: .* \(10 images in 2 groups\)"):
        split.draw(table, CONFIG, seed=0, classes=("common", "rare"))


def test_a_rare_class_in_few_groups_still_reaches_every_part() -> None:
    groups = np.arange(400) // 4
    labels = np.where(np.isin(groups, [3, 50, 77]), 1, 0)
    parts = split.draw(table_of(labels, groups=groups), CONFIG, seed=0)
    assert all((labels[parts == part] == 1).sum() >= 2 for part in ("train", "validation", "test"))


def test_limit_takes_classes_and_parts_in_their_proportions_and_leaves_the_test_part() -> None:
    table = table_of(np.random.default_rng(0).choice(3, 2000, p=[0.7, 0.2, 0.1]))
    parts = split.draw(table, CONFIG, seed=0)
    limited = split.limit(table, parts, 400, seed=0)
    assert ((limited == "test") == (parts == "test")).all()
    used = np.isin(limited, ["train", "validation"])
    assert used.sum() == 400 and (limited[used] == parts[used]).all()
    assert abs((limited == "train").sum() - 300) <= 2
    share = np.bincount(table["label"][limited == "train"]) / (limited == "train").sum()
    assert np.abs(share - np.bincount(table["label"]) / 2000).max() < 0.01
    assert (split.limit(table, parts, 400, seed=0) == limited).all()
    assert (split.limit(table, parts, 400, seed=1) != limited).any()


def test_a_limit_above_the_images_there_are_changes_nothing_and_a_tiny_one_is_refused() -> None:
    table = table_of([0, 1] * 50)
    parts = split.draw(table, CONFIG, seed=0)
    assert (split.limit(table, parts, 10_000, seed=0) == parts).all()
    with pytest.raises(DataError, match="8 in all, but it is 7"):
        split.limit(table, parts, 7, seed=0)


def test_a_class_that_is_too_small_is_refused_with_the_keys_that_leave_it_out() -> None:
    with pytest.raises(DataError, match=r"data\.classes.*data\.min_images(.|\n)*class rare: "):
        split.draw(table_of([0] * 20 + [1] * 20 + [2] * 3), CONFIG, seed=0, classes=("a", "b", "rare"))
