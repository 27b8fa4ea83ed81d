"""Translate a search space and ended trials to Optuna: parameters, distributions and the order of asking.

This is the only file that calls `suggest_*`. A parameter is not asked if it has no effect given the values that were
asked before it, so that the sampler does not learn from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from harness.config.parameters import PARAMETERS
from harness.config.ranges import Choice, Fixed, FloatRange, IntRange, Range
from harness.config.space import SearchSpace
from harness.config.trial import TrialConfig
from harness.results.study_state import EndedTrial

KEY = "harness.key"  # user attribute of a trial
STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "diverged": TrialState.PRUNED,  # the sampler counts it as bad
    "out_of_memory": TrialState.PRUNED,
    "failed": TrialState.FAIL,  # the sampler ignores it
    "duplicate": TrialState.COMPLETE,  # with the other trial's value; without a value the sampler ignores it
}


def distribution(searched: Range) -> BaseDistribution | None:
    """Return Optuna's distribution of a range; None for a fixed value, which is not asked."""
    match searched:
        case Choice(options):
            return CategoricalDistribution(options)
        case IntRange(low, high):
            return IntDistribution(low, high)
        case FloatRange(low, high, log):
            return FloatDistribution(low, high, log=log)
        case Fixed():
            return None


def _ask(trial: optuna.Trial | optuna.trial.FixedTrial, name: str, searched: Range) -> Any:
    """Ask the trial for the value of a parameter."""
    match searched:
        case Choice(options):
            return trial.suggest_categorical(name, list(options))
        case IntRange(low, high):
            return trial.suggest_int(name, low, high)
        case FloatRange(low, high, log):
            return trial.suggest_float(name, low, high, log=log)
        case Fixed(value):
            return value


def suggest(trial: optuna.Trial | optuna.trial.FixedTrial, space: SearchSpace) -> TrialConfig:
    """Ask the trial for every parameter that has an effect given the ones asked before it."""
    values: dict[str, Any] = {}
    for name, searched in space.ranges.items():
        if has_effect(name, values, space):
            values[name] = _ask(trial, name, searched)
    return space.config(values)


def has_effect(name: str, values: Mapping[str, Any], space: SearchSpace) -> bool:
    """Whether a parameter may have an effect given the values of the parameters that are asked before it.

    The parameters after it may still take every value of the space. A parameter that the strategy fixes has no effect.
    """
    return name not in space.settled and PARAMETERS[name].is_asked({**space.settled, **values}, space.ranges)


def params_of(config: TrialConfig, space: SearchSpace) -> dict[str, Any]:
    """Return Optuna's parameters of a configuration: the searched ones that have an effect given those before them."""
    values: dict[str, Any] = {}
    params: dict[str, Any] = {}
    for name, searched in space.ranges.items():
        if not has_effect(name, values, space):
            continue
        values[name] = value = getattr(config, name)
        if searched.is_searched:
            params[name] = value if searched.holds(value) else _equivalent(name, config, space)
    return params


def _equivalent(name: str, config: TrialConfig, space: SearchSpace) -> Any:
    """Return a value of the space that gives the same configuration as the canonical value, which the space lacks."""
    values = {other: getattr(config, other) for other in space.ranges}
    ends = space.ranges[name].ends()
    return next((value for value in ends if space.config({**values, name: value}) == config), ends[0])


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """Return Optuna's distribution of every searched parameter."""
    found = {name: distribution(searched) for name, searched in space.ranges.items()}
    return {name: one for name, one in found.items() if one is not None}


def to_frozen_trial(space: SearchSpace, ended: EndedTrial, objective: str) -> FrozenTrial:
    """Make Optuna's FrozenTrial of a search trial that ended."""
    state = STATES[ended.state]
    if state == TrialState.COMPLETE and ended.score is None:
        state = TrialState.FAIL
    return create_trial(
        state=state,
        value=ended.score if state == TrialState.COMPLETE else None,
        params=ended.params,
        distributions={name: d for name, d in distributions(space).items() if name in ended.params},
        intermediate_values={epoch.epoch: epoch.validation[objective] for epoch in ended.epochs},
        user_attrs={KEY: ended.key, "harness.state": ended.state},
    )
