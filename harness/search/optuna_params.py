"""A search space in Optuna's terms: which parameters a trial is asked for, from which distributions, in which order.

The only file with `suggest_*`. A parameter that changes nothing beside the values asked before it is not asked, so the
sampler does not learn from it.
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
    "diverged": TrialState.PRUNED,  # counts as bad
    "out_of_memory": TrialState.PRUNED,
    "failed": TrialState.FAIL,  # counts as missing
    "duplicate": TrialState.COMPLETE,  # with the value it is known to have; without one it counts as missing
}


def distribution(searched: Range) -> BaseDistribution | None:
    """Optuna's distribution of a range; None for a fixed value, which is not asked."""
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
    """The trial's value of a parameter."""
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
    """Ask the trial for every parameter that has an effect beside the ones asked before it."""
    values: dict[str, Any] = {}
    for name, searched in space.ranges.items():
        if has_effect(name, values, space):
            values[name] = _ask(trial, name, searched)
    return space.config(values)


def has_effect(name: str, values: Mapping[str, Any], space: SearchSpace) -> bool:
    """Whether a parameter may change anything beside the values of the parameters before it, in the order of asking.

    Of those that come after it, every value of the space is still possible. What the strategy settles has no effect.
    """
    return name not in space.settled and PARAMETERS[name].is_asked({**space.settled, **values}, space.ranges)


def params_of(config: TrialConfig, space: SearchSpace) -> dict[str, Any]:
    """Optuna's parameters for a configuration: the searched ones that have an effect beside the ones before them."""
    values: dict[str, Any] = {}
    params: dict[str, Any] = {}
    for name, searched in space.ranges.items():
        if not has_effect(name, values, space):
            continue
        values[name] = value = getattr(config, name)
        if searched.is_searched:
            params[name] = value if searched.holds(value) else _stand_in(name, config, space)
    return params


def _stand_in(name: str, config: TrialConfig, space: SearchSpace) -> Any:
    """A value that the space holds, for a canonical one that it does not: beside the others they mean the same."""
    values = {other: getattr(config, other) for other in space.ranges}
    ends = space.ranges[name].ends()
    return next((value for value in ends if space.config({**values, name: value}) == config), ends[0])


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """Optuna's distribution of every searched parameter."""
    found = {name: distribution(searched) for name, searched in space.ranges.items()}
    return {name: one for name, one in found.items() if one is not None}


def frozen(space: SearchSpace, ended: EndedTrial, objective: str) -> FrozenTrial:
    """A search trial as Optuna keeps one that has ended."""
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
