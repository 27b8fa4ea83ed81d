from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from optuna.trial import FixedTrial, TrialState

from harness.config.load import parse
from harness.config.space import SearchSpace, space
from harness.results.records import TrialJob, TrialRecord
from harness.results.study_state import EndedTrial
from harness.search.optuna_params import distributions, params_of, suggest, to_frozen_trial
from harness.search.strategy_search import StrategySearch, Suggested

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


def record(asked: Suggested, slot: int, score: float | None, state: str = "complete") -> TrialRecord:
    return TrialRecord(
        job=TrialJob(f"fine_tuning/{slot}", "search", "fine_tuning", slot, asked.config, 0, "search"),
        state=state,
        reason=None,
        epochs=(),
        best_epoch=1,
        score=score,
        seconds_alone=1.0,  # type: ignore[arg-type]
        trainable_parameters=1,
        total_parameters=2,
        device="cpu",
        started_at="2026-01-01T00:00:00+00:00",
    )


def make(seed: int = 0) -> StrategySearch:
    return StrategySearch(space_of("fine_tuning"), "balanced_accuracy", seed, 10)


def run(search: StrategySearch, slots: range, finished: list[Any]) -> list[Any]:
    """Fill slots with a made-up score that depends on the configuration alone."""
    asked_configs = []
    for slot in slots:
        asked = search.ask(slot, 0)
        key = f"fine_tuning/{slot}#1"
        search.accept(asked, key)
        done = record(asked, slot, asked.config.head_lr)
        search.tell(key, done)
        finished.append(EndedTrial.of(key, asked.params, done))
        asked_configs.append(asked.config)
    return asked_configs


def test_an_unusual_value_of_every_parameter_reaches_the_configuration() -> None:
    wanted = {
        "backbone": "resnet18",
        "unfreeze_depth": 3,
        "unfreeze_from": "stem",
        "unfreeze_schedule": "head_first",
        "head_fraction": 0.41,
        "head_lr": 0.0123,
        "backbone_lr": 4.5e-5,
        "layer_decay": 0.5,
        "batchnorm": "train_mode",
        "batch_size": 32,
    }
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
def test_a_parameter_without_an_effect_is_not_asked(values: dict[str, Any], not_asked: set[str]) -> None:
    usual = {
        "backbone": "resnet18",
        "unfreeze_depth": 3,
        "unfreeze_from": "stem",
        "unfreeze_schedule": "at_once",
        "head_lr": 0.01,
        "backbone_lr": 1e-4,
        "layer_decay": 0.5,
        "batchnorm": "frozen",
        "batch_size": 32,
    }
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


def test_a_patience_that_ends_no_trial_is_asked_for_by_one_that_ends_none_either() -> None:
    here = space_of("fine_tuning", early_stopping={"low": 2, "high": 12})  # of ten epochs
    config = here.config({"early_stopping": 11})
    assert config.early_stopping == 0
    assert suggest(FixedTrial(params_of(config, here)), here) == config


def test_a_range_has_the_distribution_that_its_value_is_asked_from() -> None:
    here = space_of("fine_tuning", unfreeze_schedule="head_first", backbone="resnet18")
    trial = FixedTrial(params_of(here.config({"unfreeze_depth": 3}), here))
    suggest(trial, here)
    assert trial.distributions == {n: d for n, d in distributions(here).items() if n in trial.distributions}
    assert set(trial.distributions) == set(here.searched())


def test_a_resumed_search_asks_for_what_an_uninterrupted_one_does() -> None:
    whole = run(make(), range(12), [])
    finished: list[EndedTrial] = []
    first = run(make(), range(7), finished)
    resumed = make()
    resumed.replay(finished)
    assert first + run(resumed, range(7, 12), finished) == whole
    assert len(set(whole)) == 12


def test_a_known_duplicate_is_remembered_across_a_restart() -> None:
    """Its second telling moves the sampler, so a resumed search must hear of it too."""
    finished: list[EndedTrial] = []
    search = make()
    run(search, range(7), finished)
    again = search.ask(7, 0)
    search.tell_duplicate(again, 0.9)
    finished.append(EndedTrial("fine_tuning/7~0", again.params, "duplicate", 0.9))
    resumed = make()
    resumed.replay(finished)
    assert resumed.ask(7, 1).config == search.ask(7, 1).config


def test_a_diverged_trial_teaches_the_sampler_and_a_failed_one_does_not() -> None:
    asked = make().ask(0, 0)
    space = space_of("fine_tuning")
    states = [
        to_frozen_trial(
            space, EndedTrial.of("", asked.params, record(asked, 0, None, state)), "balanced_accuracy"
        ).state
        for state in ("diverged", "out_of_memory", "failed")
    ]
    assert states == [TrialState.PRUNED, TrialState.PRUNED, TrialState.FAIL]


def test_a_trial_that_was_cut_off_is_asked_again_with_its_parameters() -> None:
    asked = make().ask(0, 0)
    assert make().ask(0, 0, asked.params).config == asked.config


def test_the_sampler_looks_at_the_newest_trials_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.search import strategy_search as module

    monkeypatch.setattr(module, "HISTORY", 8)
    finished: list[EndedTrial] = []
    long = make()
    run(long, range(20), finished)
    short = make()
    short.replay(finished[-8:])
    assert long.ask(20, 0).config == short.ask(20, 0).config


def test_a_redraw_is_another_draw() -> None:
    search = make()
    one = search.ask(6, 0)
    search.tell_duplicate(one, 0.5)
    assert search.ask(6, 1).config != one.config


def test_a_trial_below_the_median_is_pruned_within_its_strategy_only() -> None:
    search = make()
    for slot in range(9):
        asked = search.ask(slot, 0)
        search.accept(asked, str(slot))
        for epoch in range(1, 11):
            search.should_prune(str(slot), epoch, 0.5)
        search.tell(str(slot), dataclasses.replace(record(asked, slot, 0.5)))
    search.accept(search.ask(9, 0), "bad")
    assert [search.should_prune("bad", epoch, 0.1) for epoch in (1, 2, 3)][-1]
    other = make()
    other.accept(other.ask(0, 0), "alone")
    assert not any(other.should_prune("alone", epoch, 0.1) for epoch in range(1, 11))


def test_importances_want_twenty_trials() -> None:
    search = make()
    finished: list[Any] = []
    run(search, range(8), finished)
    assert search.importances() is None
    run(search, range(8, 22), finished)
    found = search.importances()
    assert found is not None
    assert set(found) == {"ped_anova", "fanova"}
    shares = found["ped_anova"]["shares"]
    assert max(shares, key=lambda name: shares[name]) == "head_lr"


def test_importances_count_trials_that_the_sampler_has_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.search.strategy_search.HISTORY", 25)
    search = make()
    run(search, range(40), [])
    found = search.importances()
    assert found is not None
    assert (found["ped_anova"]["trials"], found["fanova"]["trials"]) == (40, 25)


def test_a_long_list_is_left_to_the_importance_that_can_take_it() -> None:
    """fANOVA takes time that doubles with each value: a list of 60 never ended."""
    rates = [round(1e-3 * 1.05**index, 9) for index in range(60)]
    search = StrategySearch(
        space_of("feature_extraction", head_lr=rates, backbone="resnet18", batch_size=32), "accuracy", 0, 10
    )
    for slot in range(24):
        asked = search.ask(slot, 0)
        search.accept(asked, str(slot))
        search.tell(str(slot), record(asked, slot, asked.config.head_lr))
    found = search.importances()
    assert found is not None
    assert set(found) == {"ped_anova"}
