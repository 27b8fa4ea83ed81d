"""SearchSpace: which knobs a strategy searches, its default configuration, and the user's own ones."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from harness.config.sheets import backbone_spec
from harness.config.study import KNOBS, FloatRange, IntRange, StudyConfig, unknown_knob
from harness.config.trial import DEFAULTS, Strategy, TrialConfig, canonical

_FIELD_DEFAULTS = {f.name: f.default for f in dataclasses.fields(TrialConfig) if f.default is not dataclasses.MISSING}
# Knobs that a strategy settles by its definition: never asked, whatever the file says.
SETTLED: dict[Strategy, dict[str, Any]] = {
    "feature_extraction": {
        "unfreeze_depth": 0,
        "backbone_lr": None,
        "unfreeze_from": "head",
        "unfreeze_schedule": "at_once",
        "head_fraction": 0.3,
        "layer_decay": 1.0,
    },
    "fine_tuning": {},
    "from_scratch": {
        "unfreeze_depth": 5,
        "unfreeze_from": "head",
        "unfreeze_schedule": "at_once",
        "head_fraction": 0.3,
        "batchnorm": "updated_stats",
    },
}


@dataclass(frozen=True)
class SearchSpace:
    """What one strategy may try: `entries` maps every knob to a scalar, a tuple, an IntRange or a FloatRange."""

    strategy: Strategy
    entries: dict[str, Any]
    epochs: int

    def searched(self) -> dict[str, Any]:
        """The knobs with more than one value."""
        return {k: e for k, e in self.entries.items() if isinstance(e, (tuple, IntRange, FloatRange))}

    def config(self, values: dict[str, Any]) -> TrialConfig:
        """The canonical configuration with these values; knobs that are missing take the default's."""
        merged = {**self._default_values(), **values, **SETTLED[self.strategy]}
        config = TrialConfig(strategy=self.strategy, epochs=self.epochs, **merged)
        return canonical(config, backbone_spec(config.backbone).has_batchnorm)

    def default(self) -> TrialConfig:
        """The strategy's default configuration, clamped to the space: the first slot."""
        return self.config({})

    def holds(self, name: str, value: object) -> bool:
        """Whether a knob may take this value here."""
        entry = self.entries[name]
        if isinstance(entry, tuple):
            return value in entry
        if isinstance(entry, (IntRange, FloatRange)):
            return isinstance(value, (int, float)) and entry.low <= value <= entry.high
        return bool(value == entry)

    def _default_values(self) -> dict[str, Any]:
        wanted = {**_FIELD_DEFAULTS, **DEFAULTS[self.strategy]}
        return {name: _clamped(entry, wanted.get(name)) for name, entry in self.entries.items()}


def _clamped(entry: Any, wanted: Any) -> Any:
    """The value of an entry that is nearest to the wanted one."""
    if isinstance(entry, tuple):
        return wanted if wanted in entry else entry[0]
    if isinstance(entry, (IntRange, FloatRange)):
        return entry.low if wanted is None else min(max(wanted, entry.low), entry.high)
    return entry


def space(study: StudyConfig, strategy: Strategy) -> SearchSpace:
    """The search space of one strategy: the file's entries, the defaults elsewhere, what it settles fixed."""
    named = study.entries()
    wanted = {**_FIELD_DEFAULTS, **DEFAULTS[strategy]}
    entries: dict[str, Any] = {}
    for name in KNOBS:
        if name in SETTLED[strategy]:
            entries[name] = SETTLED[strategy][name]
        elif name in named:
            entries[name] = named[name]
        else:
            entries[name] = wanted.get(name)
    if entries["backbone"] is None:
        entries["backbone"] = "resnet18"
    if strategy == "feature_extraction":
        entries["batchnorm"] = _distinct_when_frozen(entries["batchnorm"])
    return SearchSpace(strategy, entries, study.epochs)


def _distinct_when_frozen(policies: Any) -> Any:
    """The policies that differ at depth 0, where `fixed_stats` and `updated_stats` are `frozen`."""
    as_tuple = policies if isinstance(policies, tuple) else (policies,)
    kept = tuple(dict.fromkeys("frozen" if p in ("fixed_stats", "updated_stats") else p for p in as_tuple))
    return kept if len(kept) > 1 else kept[0]


def tried(study: StudyConfig, strategy: Strategy) -> list[TrialConfig]:
    """The user's own configurations of this strategy (`try:`), in their order, canonical."""
    here = space(study, strategy)
    return [
        here.config({name: KNOBS[name].check(value) for name, value in entry.items() if name != "strategy"
                     and name not in SETTLED[strategy]})
        for entry in study.try_
        if entry.get("strategy") == strategy
    ]  # fmt: skip


def faults_of_try(study: StudyConfig) -> list[str]:
    """What is wrong with the `try` list: unknown knobs, wrong values, values outside the searched space."""
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
            if name not in KNOBS:
                faults.append(f"{where}.{name}: {unknown_knob(name)}")
                continue
            settled = SETTLED[strategy]
            if name in settled:
                if value != settled[name]:
                    faults.append(f"{where}.{name}: {strategy} settles it at {settled[name]}, but got {value!r}")
                continue
            try:
                checked = KNOBS[name].check(value)
            except ValueError as error:
                faults.append(f"{where}.{name}: {error}")
                continue
            if not here.holds(name, checked):
                faults.append(f"{where}.{name}: {value!r} lies outside search.{name}; widen the search, or change it")
    return faults
