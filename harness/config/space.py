"""SearchSpace: which parameters a strategy searches, its default configuration, and the user's own ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.config.backbone_specs import backbone_spec
from harness.config.parameters import PARAMETERS, Parameter, default_values, settled_values, unknown_parameter
from harness.config.ranges import Fixed, Range, one_of
from harness.config.study import StudyConfig
from harness.config.trial import Strategy, TrialConfig, canonical


@dataclass(frozen=True)
class SearchSpace:
    """What one strategy may try: the range of every parameter, in the order of PARAMETERS."""

    strategy: Strategy
    ranges: dict[str, Range]
    epochs: int

    @cached_property
    def settled(self) -> dict[str, Any]:
        """What the strategy leaves no choice in: never asked, whatever the file says."""
        return settled_values(self.strategy)

    @cached_property
    def _defaults(self) -> dict[str, Any]:
        """The strategy's defaults, clamped to the space."""
        wanted = default_values(self.strategy)
        return {
            name: found.clamp(None if PARAMETERS[name].first_is_default else wanted[name])
            for name, found in self.ranges.items()
        }

    def searched(self) -> dict[str, Range]:
        """The parameters that the file gives a list or a range, and the strategy does not settle."""
        return {name: found for name, found in self.ranges.items() if found.is_searched}

    def config(self, values: Mapping[str, Any]) -> TrialConfig:
        """The canonical configuration with these values; parameters that are missing take the default's."""
        merged = {**self._defaults, **values, **self.settled}
        return canonical(TrialConfig(strategy=self.strategy, epochs=self.epochs, **merged))

    def default(self) -> TrialConfig:
        """The strategy's default configuration, clamped to the space: the first slot."""
        return self.config({})

    def holds(self, name: str, value: object) -> bool:
        """Whether a parameter may take this value here."""
        return self.ranges[name].holds(value)


def space(study: StudyConfig, strategy: Strategy) -> SearchSpace:
    """The search space of one strategy: the file's ranges, the defaults elsewhere, what it settles fixed."""
    named, settled, defaults = study.ranges(), settled_values(strategy), default_values(strategy)
    ranges: dict[str, Range] = {}
    for name, parameter in PARAMETERS.items():
        if name in settled or name not in named:
            ranges[name] = Fixed(defaults[name])
        else:
            ranges[name] = _distinct(named[name], parameter, settled)
    return SearchSpace(strategy, ranges, study.epochs)


def _distinct(found: Range, parameter: Parameter, settled: dict[str, Any]) -> Range:
    """Leave out values that do the same as another one beside what is settled: some BatchNorm policies at depth 0."""
    others = parameter.simplified.of
    if not others or not settled.keys() >= set(others):
        return found
    return one_of(parameter.simplified(settled, value) for value in found.values())


def tried(study: StudyConfig, strategy: Strategy) -> list[TrialConfig]:
    """The user's own configurations of this strategy (`try:`), in their order, canonical."""
    here = space(study, strategy)
    return [
        here.config(
            {
                name: PARAMETERS[name].check(value)
                for name, value in entry.items()
                if name != "strategy" and name not in here.settled
            }
        )
        for entry in study.try_
        if entry.get("strategy") == strategy
    ]


def faults_of_try(study: StudyConfig) -> list[str]:
    """What is wrong with the `try` list: unknown parameters, wrong values, values outside the searched space."""
    faults: list[str] = []
    for index, entry in enumerate(study.try_):
        where = f"try[{index}]"
        strategy = entry.get("strategy")
        if strategy not in study.strategies:
            faults.append(f"{where}.strategy: must be one of {', '.join(study.strategies)}, but got {strategy!r}")
            continue
        here = space(study, strategy)
        for name, value in entry.items():
            if name == "strategy":
                continue
            if name not in PARAMETERS:
                faults.append(f"{where}.{name}: {unknown_parameter(name)}")
                continue
            if name in here.settled:
                if value != here.settled[name]:
                    faults.append(f"{where}.{name}: {strategy} settles it at {here.settled[name]}, but got {value!r}")
                continue
            try:
                checked = PARAMETERS[name].check(value)
            except ValueError as error:
                faults.append(f"{where}.{name}: {error}")
                continue
            if not here.holds(name, checked):
                faults.append(f"{where}.{name}: {value!r} lies outside search.{name}; widen the search, or change it")
    return faults


def backbones(study: StudyConfig) -> list[str]:
    """Every backbone the study may build, in the file's order."""
    names: dict[str, None] = {}
    for strategy in study.strategies:
        names.update(dict.fromkeys(space(study, strategy).ranges["backbone"].values()))
    return list(names)


def sides(study: StudyConfig) -> list[int]:
    """Pixels a side of every array of images that the study trains on."""
    size = study.data.image_size
    return sorted({backbone_spec(b).native_size for b in backbones(study)}) if size == "native" else [int(size)]
