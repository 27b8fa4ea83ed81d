"""SearchSpace: the parameters that a strategy searches, its default configuration, and the user's configurations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.config.fit import Fit
from harness.config.initial_weights import Weights
from harness.config.parameter import Parameter
from harness.config.parameters import PARAMETERS, default_values, settled_values, unknown_parameter
from harness.config.ranges import Fixed, Range, one_of
from harness.config.study import StudyConfig
from harness.config.trial import Strategy, TrialConfig, canonical


@dataclass(frozen=True)
class SearchSpace:
    """The search space of one strategy: the range of every parameter, in the order of PARAMETERS."""

    strategy: Strategy
    ranges: dict[str, Range]
    epochs: int

    @cached_property
    def settled(self) -> dict[str, Any]:
        """The values that the strategy fixes, whatever the file says. The sampler never suggests them."""
        return settled_values(self.strategy)

    @cached_property
    def _defaults(self) -> dict[str, Any]:
        """The strategy's defaults, each replaced by the nearest value in its range."""
        wanted = default_values(self.strategy)
        return {
            name: found.clamp(None if PARAMETERS[name].first_is_default else wanted[name])
            for name, found in self.ranges.items()
        }

    def searched(self) -> dict[str, Range]:
        """Return the parameters that have a list or a range in the file and are not fixed by the strategy."""
        return {name: found for name, found in self.ranges.items() if found.is_searched}

    def config(self, values: Mapping[str, Any]) -> TrialConfig:
        """Return the canonical configuration with these values; missing parameters take their defaults."""
        merged = {**self._defaults, **values, **self.settled}
        return canonical(TrialConfig(strategy=self.strategy, epochs=self.epochs, **merged))

    def default(self) -> TrialConfig:
        """Return the strategy's default configuration in this space, which is the first trial."""
        return self.config({})

    def defaults(self) -> list[TrialConfig]:
        """Return the default, and then what it is with each further value of the parameters with `has_defaults`."""
        found = [self.default()]
        for name, searched in self.searched().items():
            if PARAMETERS[name].has_defaults and PARAMETERS[name].is_asked(self.settled, self.ranges):
                found += [self.config({name: value}) for value in searched.values()]
        return list(dict.fromkeys(found))

    def holds(self, name: str, value: object) -> bool:
        """Return whether a parameter may take this value."""
        return self.ranges[name].holds(value)


def space(study: StudyConfig, strategy: Strategy) -> SearchSpace:
    """Return the search space of one strategy: the file's ranges, and fixed values for all other parameters."""
    named, settled, defaults = study.ranges(), settled_values(strategy), default_values(strategy)
    ranges: dict[str, Range] = {}
    for name, parameter in PARAMETERS.items():
        if name in settled or name not in named:
            ranges[name] = Fixed(defaults[name])
        else:
            ranges[name] = _distinct(named[name], parameter, settled)
    return SearchSpace(strategy, ranges, study.epochs)


def _distinct(found: Range, parameter: Parameter, settled: dict[str, Any]) -> Range:
    """Leave out values that have the same effect as another one, such as some BatchNorm policies at depth 0."""
    others = parameter.simplified.of
    if not others or not settled.keys() >= set(others):
        return found
    return one_of(parameter.simplified(settled, value) for value in found.values())


def tried(study: StudyConfig, strategy: Strategy) -> list[TrialConfig]:
    """Return the user's configurations of this strategy (`try:`), in the order of the file and in canonical form."""
    search_space = space(study, strategy)
    return [
        search_space.config(
            {
                name: PARAMETERS[name].check(value)
                for name, value in entry.items()
                if name != "strategy" and name not in search_space.settled
            }
        )
        for entry in study.try_
        if entry.get("strategy") == strategy
    ]


def faults_of_try(study: StudyConfig) -> list[str]:
    """Return the faults of the `try` list: unknown parameters, wrong values, and values outside the search space."""
    faults: list[str] = []
    for index, entry in enumerate(study.try_):
        where = f"try[{index}]"
        strategy = entry.get("strategy")
        if strategy not in study.strategies:
            faults.append(f"{where}.strategy: must be one of {', '.join(study.strategies)}, but got {strategy!r}")
            continue
        search_space = space(study, strategy)
        for name, value in entry.items():
            if name == "strategy":
                continue
            if name not in PARAMETERS:
                faults.append(f"{where}.{name}: {unknown_parameter(name)}")
                continue
            if name in search_space.settled:
                if value != (fixed := search_space.settled[name]):
                    faults.append(f"{where}.{name}: {strategy} fixes it at {fixed}, but got {value!r}; leave it out")
                continue
            try:
                checked = PARAMETERS[name].check(value)
            except ValueError as error:
                faults.append(f"{where}.{name}: {error}")
                continue
            if not search_space.holds(name, checked):
                faults.append(
                    f"{where}.{name}: {value!r} lies outside search.{name}; extend search.{name}, or use another value"
                )
    return faults


def backbones(study: StudyConfig) -> list[str]:
    """Return every backbone that the study may build, in the order of the file."""
    names: dict[str, None] = {}
    for strategy in study.strategies:
        names.update(dict.fromkeys(space(study, strategy).ranges["backbone"].values()))
    return list(names)


def fits(study: StudyConfig) -> list[Fit]:
    """Return the sizes and rules of the images that the study trains on; each needs an array of images."""
    pairs = [(backbone, entry) for backbone in backbones(study) for entry in study.weights.entries]
    if study.data.resize == "weights":
        return sorted({entry.fit(backbone) for backbone, entry in pairs})
    return sorted({Fit(side_of(study, backbone, entry)) for backbone, entry in pairs})


def side_of(study: StudyConfig, backbone: str, weights: Weights) -> int:
    """Return the size of the images that a backbone with these weights gets, in pixels a side."""
    size = study.data.image_size
    return weights.native_size(backbone) if size == "native" else int(size)
