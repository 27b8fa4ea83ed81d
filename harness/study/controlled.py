"""One choice at a time: the configurations that differ from a winner in one thing, everything else held."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from itertools import chain, zip_longest
from typing import Any

from harness.config.ranges import Range
from harness.config.space import SearchSpace
from harness.config.trial import TrialConfig, canonical
from harness.results.event_types import ControlledChange

FACTORS = ("batchnorm", "unfreeze_depth", "backbone", "backbone_lr", "unfreeze_schedule", "unfreeze_from")
RATIO = 10.0  # by which the ratio of head rate to backbone rate is changed, both ways


def changes(here: SearchSpace, winner: TrialConfig, most: int) -> list[ControlledChange]:
    """At most so many changes, one of each factor in turn, the values nearest to the winner's first.

    Only values that the search might have taken, and none that leaves the configuration as it is. The head's rate
    stays where the ratio of the rates changes.
    """
    found: dict[str, ControlledChange] = {}
    each = (_of_factor(here, winner, parameter) for parameter in FACTORS)
    for change in chain.from_iterable(zip_longest(*each)):
        if change is not None and change.config != winner:
            found.setdefault(change.config.key(), change)
    return list(found.values())[:most]


def _of_factor(here: SearchSpace, winner: TrialConfig, parameter: str) -> Iterator[ControlledChange]:
    found, now = here.ranges[parameter], getattr(winner, parameter)
    if not found.is_searched:
        return
    values = _rates(found, now) if parameter == "backbone_lr" else list(found.values())
    if parameter != "backbone_lr" and all(isinstance(value, int) for value in values):
        values.sort(key=lambda value: abs(value - now))
    for value in values:
        if value != now:
            yield ControlledChange(parameter, value, canonical(dataclasses.replace(winner, **{parameter: value})))


def _rates(found: Range, now: float | None) -> list[Any]:
    """The rate times and over RATIO, as far as the range reaches; a step of less than half of it is no other choice."""
    if now is None or not found.is_continuous:
        return []
    wanted = (found.clamp(now * factor) for factor in (1 / RATIO, RATIO))
    return [rate for rate in wanted if abs(math.log(rate / now)) > math.log(RATIO) / 2]
