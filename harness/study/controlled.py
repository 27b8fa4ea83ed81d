"""One choice at a time: the configurations that differ from a winner in one thing, everything else held."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

from harness.config.sheets import backbone_spec
from harness.config.space import SearchSpace
from harness.config.study import FloatRange, IntRange
from harness.config.trial import TrialConfig, canonical

FACTORS = ("batchnorm", "unfreeze_depth", "backbone", "backbone_lr", "unfreeze_schedule", "unfreeze_from")
RATIO = 10.0  # by which the ratio of head rate to backbone rate is changed, both ways


@dataclass(frozen=True)
class Change:
    """The winner with another value of one knob."""

    knob: str
    value: Any
    config: TrialConfig


def changes(here: SearchSpace, winner: TrialConfig, most: int) -> list[Change]:
    """At most so many changes, one of each factor in turn, the values nearest to the winner's first.

    Only values that the search might have taken, and none that leaves the configuration as it is. The head's rate
    stays where the ratio of the rates changes.
    """
    found: dict[str, Change] = {}
    each = (_of_factor(here, winner, knob) for knob in FACTORS)
    for change in chain.from_iterable(zip_longest(*each)):
        if change is not None and change.config != winner:
            found.setdefault(change.config.key(), change)
    return list(found.values())[:most]


def _of_factor(here: SearchSpace, winner: TrialConfig, knob: str) -> Iterator[Change]:
    entry, now = here.entries[knob], getattr(winner, knob)
    if knob == "backbone_lr":
        values: list[Any] = _rates(entry, now)
    elif isinstance(entry, IntRange):
        values = sorted(range(entry.low, entry.high + 1), key=lambda value: (abs(value - now), value))
    elif isinstance(entry, tuple):
        number = all(isinstance(value, int) for value in entry)
        values = sorted(entry, key=lambda value: abs(value - now)) if number else list(entry)
    else:
        return
    for value in values:
        if value != now:
            changed = dataclasses.replace(winner, **{knob: value})
            yield Change(knob, value, canonical(changed, backbone_spec(changed.backbone).has_batchnorm))


def _rates(entry: Any, now: float | None) -> list[float]:
    """The rate times and over RATIO, as far as the range reaches; a step of less than half of it is no other choice."""
    if now is None or not isinstance(entry, FloatRange):
        return []
    wanted = (min(max(now * factor, entry.low), entry.high) for factor in (1 / RATIO, RATIO))
    return [rate for rate in wanted if abs(math.log(rate / now)) > math.log(RATIO) / 2]
