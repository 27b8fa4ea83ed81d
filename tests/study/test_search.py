from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FixedTrial, TrialState

from harness.config.load import parse
from harness.config.space import SearchSpace, space
from harness.results.records import TrialRecord
from harness.study.search import Asked, StrategySearch, open_storage, params_of, suggest

SEARCH: dict[str, Any] = {
    "backbone": ["resnet18", "mobilenet_v3_small", "vgg11"],
    "unfreeze_depth": {"low": 1, "high": 5},
    "unfreeze_from": ["head", "stem"],
    "unfreeze_schedule": ["at_once", "head_first"],
    "head_fraction": {"low": 0.2, "high": 0.5},
    "head_lr": {"low": 1e-4, "high": 1e-1, "log": True},
    "backbone_lr": {"low": 1e-6, "high": 1e-2, "log": True},
    "layer_decay": [0.5, 1.0],
    "batchnorm": ["frozen", "updated_stats", "train_mode"],
    "batch_size": [32, 64],
}


def space_of(strategy: str, **changes: Any) -> SearchSpace:
    return space(parse({"search": {**SEARCH, **changes}, "weights": "none"}, "test"), strategy)  # type: ignore[arg-type]


def record(asked: Asked, slot: int, score: float | None, state: str = "complete") -> TrialRecord:
    return TrialRecord(
        trial_id=f"fine_tuning/{slot}", kind="search", strategy="fine_tuning", slot=slot, config=asked.config, seed=0,
        state=state, reason=None, epochs=(), best_epoch=1, score=score, seconds_alone=1.0,  # type: ignore[arg-type]
        trainable_parameters=1, total_parameters=2, device="cpu", started_at="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


@pytest.fixture
def storage(tmp_path: Path) -> optuna.storages.BaseStorage:
    return open_storage(tmp_path / "optuna.db")


def make(storage: Any, name: str = "s", seed: int = 0) -> StrategySearch:
    return StrategySearch(storage, name, space_of("fine_tuning"), "balanced_accuracy", seed, 10)


def run(search: StrategySearch, slots: range, finished: list[Any]) -> list[Any]:
    """Fill slots with a made-up score that depends on the configuration alone."""
    asked_configs = []
    for slot in slots:
        asked = search.ask(slot, 0)
        key = f"fine_tuning/{slot}#1"
        search.accept(asked, key)
        done = record(asked, slot, asked.config.head_lr)
        search.tell(key, done)
        finished.append((key, asked.params, done))
        asked_configs.append(asked.config)
    return asked_configs


def test_an_unusual_value_of_every_knob_reaches_the_configuration() -> None:
    wanted = {
        "backbone": "resnet18", "unfreeze_depth": 3, "unfreeze_from": "stem", "unfreeze_schedule": "head_first",
        "head_fraction": 0.41, "head_lr": 0.0123, "backbone_lr": 4.5e-5, "layer_decay": 0.5, "batchnorm": "train_mode",
        "batch_size": 32,
    }  # fmt: skip
    config = suggest(FixedTrial(wanted), space_of("fine_tuning"))
    assert {name: getattr(config, name) for name in wanted} == wanted


@pytest.mark.parametrize(
    ("values", "not_asked"),
    [
        ({"unfreeze_depth": 1}, {"layer_decay", "head_fraction"}),
        ({"unfreeze_depth": 5}, {"unfreeze_from", "head_fraction"}),
        ({"backbone": "vgg11"}, {"batchnorm", "head_fraction"}),
    ],
)
def test_a_knob_without_an_effect_is_not_asked(values: dict[str, Any], not_asked: set[str]) -> None:
    usual = {
        "backbone": "resnet18", "unfreeze_depth": 3, "unfreeze_from": "stem", "unfreeze_schedule": "at_once",
        "head_lr": 0.01, "backbone_lr": 1e-4, "layer_decay": 0.5, "batchnorm": "frozen", "batch_size": 32,
    }  # fmt: skip
    trial = FixedTrial({**usual, **values})
    suggest(trial, space_of("fine_tuning"))
    assert not_asked.isdisjoint(trial.distributions)


def test_feature_extraction_asks_nothing_about_the_backbones_training() -> None:
    trial = FixedTrial({"backbone": "resnet18", "head_lr": 0.01, "batchnorm": "frozen", "batch_size": 32})
    config = suggest(trial, space_of("feature_extraction"))
    assert (config.unfreeze_depth, config.backbone_lr) == (0, None)
    assert set(trial.distributions) == {"backbone", "head_lr", "batchnorm", "batch_size"}


@pytest.mark.parametrize("strategy", ["feature_extraction", "fine_tuning", "from_scratch"])
def test_the_default_can_be_asked_for_by_its_parameters(strategy: str) -> None:
    here = space_of(strategy)
    assert suggest(FixedTrial(params_of(here.default(), here)), here) == here.default()


def test_a_canonical_policy_that_is_not_in_the_list_is_asked_for_by_one_that_means_the_same() -> None:
    here = space_of("fine_tuning", batchnorm=["frozen", "train_mode"], unfreeze_schedule="at_once")
    config = here.config({"unfreeze_depth": 5, "batchnorm": "train_mode"})
    assert config.batchnorm == "updated_stats"
    assert suggest(FixedTrial(params_of(config, here)), here) == config


def test_a_resumed_search_asks_for_what_an_uninterrupted_one_does(storage: Any) -> None:
    whole = run(make(storage, "whole"), range(12), [])
    finished: list[Any] = []
    first = run(make(storage, "cut"), range(7), finished)
    resumed = make(storage, "cut")
    resumed.catch_up(finished)
    assert first + run(resumed, range(7, 12), finished) == whole
    assert len(set(whole)) == 12


def test_a_lost_database_is_made_again_from_the_log(storage: Any, tmp_path: Path) -> None:
    finished: list[Any] = []
    run(make(storage), range(7), finished)
    again = make(open_storage(tmp_path / "other.db"))
    again.catch_up(finished)
    expected = run(make(storage), range(7, 10), list(finished))
    assert run(again, range(7, 10), finished) == expected


def test_a_trial_that_was_cut_off_is_failed_and_asked_again_with_its_parameters(storage: Any) -> None:
    search = make(storage)
    asked = search.ask(0, 0)
    search.accept(asked, "fine_tuning/0#1")
    search = make(storage)
    search.catch_up([])
    study = optuna.load_study(study_name="s/fine_tuning", storage=storage)
    assert [t.state for t in study.trials] == [TrialState.FAIL]
    assert search.ask(0, 0, asked.params).config == asked.config


def test_a_diverged_trial_teaches_the_sampler_and_a_failed_one_does_not(storage: Any) -> None:
    search = make(storage)
    for slot, state in enumerate(("diverged", "out_of_memory", "failed")):
        asked = search.ask(slot, 0)
        search.accept(asked, str(slot))
        search.tell(str(slot), record(asked, slot, None, state))
    study = optuna.load_study(study_name="s/fine_tuning", storage=storage)
    assert [t.state for t in study.trials] == [TrialState.PRUNED, TrialState.PRUNED, TrialState.FAIL]


def test_a_redraw_is_another_draw(storage: Any) -> None:
    search = make(storage)
    one = search.ask(6, 0)
    search.tell_duplicate(one, 0.5)
    assert search.ask(6, 1).config != one.config


def test_a_trial_below_the_median_is_pruned_within_its_strategy_only(storage: Any) -> None:
    search = make(storage)
    for slot in range(9):
        asked = search.ask(slot, 0)
        search.accept(asked, str(slot))
        for epoch in range(1, 11):
            search.should_prune(str(slot), epoch, 0.5)
        search.tell(str(slot), dataclasses.replace(record(asked, slot, 0.5)))
    search.accept(search.ask(9, 0), "bad")
    assert [search.should_prune("bad", epoch, 0.1) for epoch in (1, 2, 3)][-1]
    other = make(storage, "other")
    other.accept(other.ask(0, 0), "alone")
    assert not any(other.should_prune("alone", epoch, 0.1) for epoch in range(1, 11))


def test_importances_want_twenty_trials(storage: Any) -> None:
    search = make(storage)
    finished: list[Any] = []
    run(search, range(8), finished)
    assert search.importances() is None
    run(search, range(8, 22), finished)
    found = search.importances()
    assert found is not None
    assert set(found) == {"ped_anova", "fanova"}
    assert max(found["ped_anova"], key=lambda name: found["ped_anova"][name]) == "head_lr"
