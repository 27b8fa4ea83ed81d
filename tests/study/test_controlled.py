"""One choice at a time: what is changed around a winner, and what is not."""

from __future__ import annotations

import dataclasses
from typing import Any

from harness.config.load import parse
from harness.config.space import SearchSpace, space
from harness.config.trial import Strategy
from harness.study.controlled import changes

SEARCH: dict[str, Any] = {
    "backbone": ["resnet18", "mobilenet_v3_small"],
    "unfreeze_depth": {"low": 1, "high": 5},
    "batchnorm": ["frozen", "fixed_stats", "updated_stats"],
    "head_lr": {"low": 1e-4, "high": 1e-1, "log": True},
    "backbone_lr": {"low": 1e-6, "high": 1e-2, "log": True},
}


def here(strategy: Strategy = "fine_tuning", **search: Any) -> SearchSpace:
    return space(parse({"search": SEARCH | search}, "test"), strategy)


def test_a_change_differs_from_the_winner_in_its_own_knob_alone() -> None:
    winner = here().config({"unfreeze_depth": 3, "batchnorm": "fixed_stats", "head_lr": 1e-3, "backbone_lr": 1e-4})
    found = changes(here(), winner, 100)
    for change in found:
        before, after = dataclasses.asdict(winner), dataclasses.asdict(change.config)
        assert [name for name in before if before[name] != after[name]] == [change.parameter]
        assert after[change.parameter] == change.value
    assert {change.parameter for change in found} == {"batchnorm", "unfreeze_depth", "backbone", "backbone_lr"}
    assert len({change.config.key() for change in found}) == len(found) == 2 + 4 + 1 + 2


def test_a_small_budget_takes_one_of_each_factor_and_the_nearest_value() -> None:
    winner = here().config({"unfreeze_depth": 3, "head_lr": 1e-3, "backbone_lr": 1e-4})
    found = changes(here(), winner, 4)
    assert [change.parameter for change in found] == ["batchnorm", "unfreeze_depth", "backbone", "backbone_lr"]
    assert found[1].value == 2
    assert found[3].value == 1e-5
    assert changes(here(), winner, 0) == []


def test_the_ratio_of_the_rates_stays_within_the_range() -> None:
    winner = here().config({"head_lr": 1e-3, "backbone_lr": 5e-3})
    rates = [c.value for c in changes(here(), winner, 100) if c.parameter == "backbone_lr"]
    assert rates == [5e-4], "five thirds of a factor of ten up there is only a factor of two"


def test_feature_extraction_changes_only_what_it_may_choose() -> None:
    side = here("feature_extraction", batchnorm=["frozen", "fixed_stats", "recalibrated"])
    found = changes(side, side.default(), 100)
    assert [(change.parameter, change.value) for change in found] == [
        ("batchnorm", "recalibrated"),
        ("backbone", "mobilenet_v3_small"),
    ]


def test_what_is_fixed_is_not_changed() -> None:
    fixed = here(backbone="resnet18", batchnorm="frozen", unfreeze_depth=2, backbone_lr=1e-4)
    assert changes(fixed, fixed.default(), 100) == []


def test_a_value_that_would_train_the_same_is_no_change() -> None:
    side = here(batchnorm=["updated_stats", "train_mode"])  # with every stage unfrozen at once both are one
    winner = side.config({"unfreeze_depth": 5, "batchnorm": "updated_stats", "head_lr": 1e-3, "backbone_lr": 1e-4})
    assert "batchnorm" not in [change.parameter for change in changes(side, winner, 100)]
