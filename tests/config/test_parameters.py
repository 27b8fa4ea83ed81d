"""Every search parameter has a full entry, and what is derived from the table holds together."""

from __future__ import annotations

import dataclasses
import itertools
import typing
from typing import Any

import pytest

from harness.config import parameters
from harness.config.parameters import PARAMETERS, TOP_LEVEL_PARAMETERS, default_values, idle, settled_values
from harness.config.strategies import STRATEGIES
from harness.config.study import StudyConfig
from harness.config.trial import TrialConfig, canonical

NOT_SEARCHED = {"strategy", "epochs"}
FIELDS = {field.name: field for field in dataclasses.fields(TrialConfig)}


def test_every_field_that_may_be_searched_has_an_entry_and_no_other() -> None:
    assert [name for name in FIELDS if name not in NOT_SEARCHED and name in PARAMETERS] != []
    assert set(PARAMETERS) == set(FIELDS) - NOT_SEARCHED
    assert all(name in StudyConfig.model_fields for name in TOP_LEVEL_PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_an_entry_is_full(name: str) -> None:
    one = PARAMETERS[name]
    assert one.name == name
    assert one.doc and one.label and one.short_label
    assert len(one.short_label) <= len(one.label)
    if one.kind != "choice":
        assert one.low is not None and one.high is not None and one.low <= one.high
    for rule in (one.active, one.asked or one.active, one.simplified):
        assert set(rule.of) <= set(FIELDS)
    defaults = [one.default, *one.by_strategy.values(), *([] if one.off is None else [one.off])]
    for value in defaults:
        assert value is None or one.check(value) == value
    assert set(one.by_strategy) | set(one.settled) <= set(STRATEGIES)


@pytest.mark.parametrize("name", [name for name, one in PARAMETERS.items() if one.choices])
def test_the_choices_are_those_of_the_field_s_type(name: str) -> None:
    assert PARAMETERS[name].choices == typing.get_args(typing.get_type_hints(TrialConfig)[name])


@pytest.mark.parametrize("name", [name for name in FIELDS if FIELDS[name].default is not dataclasses.MISSING])
def test_a_default_stands_in_the_table_alone(name: str) -> None:
    if name not in NOT_SEARCHED:
        assert FIELDS[name].default == PARAMETERS[name].default


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_default_configuration_is_canonical(strategy: Any) -> None:
    config = TrialConfig(strategy=strategy, **default_values(strategy))
    assert canonical(config) == config


def test_a_strategy_settles_what_has_no_effect_beside_its_definition() -> None:
    assert settled_values("feature_extraction") == {
        "unfreeze_depth": 0,
        "backbone_lr": None,
        "unfreeze_from": "head",
        "unfreeze_schedule": "at_once",
        "head_fraction": 0.3,
        "layer_decay": 1.0,
    }
    assert settled_values("fine_tuning") == {}
    assert settled_values("from_scratch") == {
        "unfreeze_depth": 5,
        "head_solver": "adamw",
        "unfreeze_from": "head",
        "unfreeze_schedule": "at_once",
        "head_fraction": 0.3,
        "batchnorm": "updated_stats",
        "weights": "default",
    }


def test_a_configuration_is_simplified_once_and_for_all() -> None:
    """A rule that looked at a value which a later rule changes would need a second pass."""
    schedules, policies = PARAMETERS["unfreeze_schedule"].choices, PARAMETERS["batchnorm"].choices
    cases = itertools.product(range(6), schedules, policies, ("head", "stem"), ("resnet18", "vgg11"))
    for depth, schedule, policy, end, backbone in cases:
        config = TrialConfig("fine_tuning", backbone, depth, 1e-3, 1e-4, head_fraction=0.4, layer_decay=0.5)
        drawn: dict[str, Any] = {"unfreeze_from": end, "unfreeze_schedule": schedule, "batchnorm": policy}
        config = dataclasses.replace(config, **drawn, head_hidden=32, early_stopping=10)
        assert canonical(canonical(config)) == canonical(config)


def test_what_says_nothing_of_a_configuration_is_idle() -> None:
    config = TrialConfig("fine_tuning", "resnet18", 3, 1e-3, 1e-4, layer_decay=0.5, early_stopping=3).to_json()
    said = idle(config)
    assert {"head_fraction", "head_hidden", "mixup", "head"} <= said
    assert said.isdisjoint(
        {"unfreeze_depth", "unfreeze_from", "layer_decay", "batchnorm", "early_stopping", "optimizer"}
    )
    assert idle(config | {"backbone": "vgg11"}) == said | {"batchnorm"}
    assert idle(config | {"backbone": "a_net_of_tomorrow"}) == said


def test_a_field_that_is_no_parameter_is_called_by_its_name() -> None:
    assert (parameters.label("epochs"), parameters.short_label("epochs")) == ("epochs", "epochs")
    assert (parameters.label("head_lr"), parameters.short_label("head_lr")) == ("head learning rate", "head rate")
