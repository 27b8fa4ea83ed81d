"""Make the configurations that differ from a winner in one parameter, for the exploration after the verdict."""

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

FACTORS = ("batchnorm", "unfreeze_depth", "backbone", "weights", "backbone_lr", "unfreeze_schedule", "unfreeze_from")
RATIO = 10.0  # factor by which the backbone's learning rate is multiplied and divided


def changes(space: SearchSpace, winner: TrialConfig, limit: int) -> list[ControlledChange]:
    """Return at most `limit` changes, from each of FACTORS in turn, values nearest to the winner's first.

    Only values of the search space are used, and only changes that give another configuration. If the backbone's
    learning rate changes, the head's stays.
    """
    found: dict[str, ControlledChange] = {}
    each = (_of_factor(space, winner, parameter) for parameter in FACTORS)
    for change in chain.from_iterable(zip_longest(*each)):
        if change is not None and change.config != winner:
            found.setdefault(change.config.key(), change)
    return list(found.values())[:limit]


def _of_factor(space: SearchSpace, winner: TrialConfig, parameter: str) -> Iterator[ControlledChange]:
    searched, now = space.ranges[parameter], getattr(winner, parameter)
    if not searched.is_searched:
        return
    values = _rates(searched, now) if parameter == "backbone_lr" else list(searched.values())
    if parameter != "backbone_lr" and all(isinstance(value, int) for value in values):
        values.sort(key=lambda value: abs(value - now))
    for value in values:
        if value != now:
            yield ControlledChange(parameter, value, canonical(dataclasses.replace(winner, **{parameter: value})))


def _rates(searched: Range, now: float | None) -> list[Any]:
    """Return the rate divided and multiplied by RATIO, clamped to the range.

    A rate that then differs by less than the square root of RATIO is left out.
    """
    if now is None or not searched.is_continuous:
        return []
    wanted = (searched.clamp(now * factor) for factor in (1 / RATIO, RATIO))
    return [rate for rate in wanted if abs(math.log(rate / now)) > math.log(RATIO) / 2]
