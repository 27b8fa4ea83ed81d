"""What a search parameter may take in a study: one value, a list, or a range of whole or of real numbers.

Each kind answers the same questions, so that nobody has to ask which kind it is. Only what Optuna is told differs by
kind (`harness.search.optuna_params`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

Scalar = bool | int | float | str
End = Literal["low", "high"]

SOME = 8  # whole numbers of a range that `some_values` still gives one by one
EDGE_LEAST = 4  # whole numbers that a range needs to have an edge; with fewer, the ends are half of what there is


@dataclass(frozen=True)
class Fixed:
    """One value, which is not searched; None if the parameter means nothing for the strategy."""

    value: Scalar | None

    is_searched: ClassVar[bool] = False
    is_continuous: ClassVar[bool] = False

    def values(self) -> tuple[Any, ...]:
        """Every value it holds."""
        return (self.value,)

    def some_values(self) -> tuple[Any, ...]:
        """A few values that stand for all."""
        return self.values()

    def ends(self) -> tuple[Any, ...]:
        """The values among which the smallest and the largest are."""
        return self.values()

    def holds(self, value: object) -> bool:
        """Whether the parameter may take this value."""
        return bool(value == self.value)

    def clamp(self, value: Any) -> Any:
        """The value it holds that is nearest to this one."""
        return self.value

    def edge(self, value: float, near: float) -> End | None:
        """At which end a value lies; None, since there is no range."""
        return None

    def to_yaml(self) -> Any:
        """As it stands in a study file."""
        return self.value


@dataclass(frozen=True)
class Choice:
    """A list of two or more values, names or numbers, in the order of the file."""

    options: tuple[Scalar, ...]

    is_searched: ClassVar[bool] = True
    is_continuous: ClassVar[bool] = False

    def values(self) -> tuple[Any, ...]:
        """Every value it holds."""
        return self.options

    def some_values(self) -> tuple[Any, ...]:
        """A few values that stand for all: here all of them."""
        return self.options

    def ends(self) -> tuple[Any, ...]:
        """The values among which the smallest and the largest are: all of them, in no order."""
        return self.options

    def holds(self, value: object) -> bool:
        """Whether the parameter may take this value."""
        return value in self.options

    def clamp(self, value: Any) -> Any:
        """This value if the list names it, otherwise the first one."""
        return value if value in self.options else self.options[0]

    def edge(self, value: float, near: float) -> End | None:
        """At which end a value lies; None, since a list has no ends to search beyond."""
        return None

    def to_yaml(self) -> Any:
        """As it stands in a study file."""
        return list(self.options)


@dataclass(frozen=True)
class IntRange:
    """A range of whole numbers, both ends included."""

    low: int
    high: int

    is_searched: ClassVar[bool] = True
    is_continuous: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_order(self.low, self.high)

    def values(self) -> tuple[Any, ...]:
        """Every value it holds, in rising order."""
        return tuple(range(self.low, self.high + 1))

    def some_values(self) -> tuple[Any, ...]:
        """A few values that stand for all: every one, or some at equal steps if there are more than SOME."""
        every = range(self.low, self.high + 1)
        return tuple(every if len(every) <= SOME else every[:: len(every) // (SOME // 2)])

    def ends(self) -> tuple[Any, ...]:
        """The smallest and the largest value."""
        return self.low, self.high

    def holds(self, value: object) -> bool:
        """Whether the parameter may take this value."""
        return isinstance(value, (int, float)) and self.low <= value <= self.high

    def clamp(self, value: Any) -> Any:
        """The value it holds that is nearest to this one; the lowest for None."""
        return self.low if value is None else min(max(value, self.low), self.high)

    def edge(self, value: float, near: float) -> End | None:
        """At which end a value lies: at the last whole number itself, if there are EDGE_LEAST or more."""
        if self.high - self.low + 1 < EDGE_LEAST:
            return None
        ends: dict[int, End] = {self.low: "low", self.high: "high"}
        return ends.get(int(value))

    def to_yaml(self) -> Any:
        """As it stands in a study file."""
        return {"low": self.low, "high": self.high}


@dataclass(frozen=True)
class FloatRange:
    """A range of real numbers, both ends included; `log` draws uniformly in the logarithm."""

    low: float
    high: float
    log: bool = False

    is_searched: ClassVar[bool] = True
    is_continuous: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_order(self.low, self.high)
        if self.log and self.low <= 0:
            raise ValueError(f"a log range needs low above 0, but got {self.low}")

    def values(self) -> tuple[Any, ...]:
        """Its ends, which stand for all between them."""
        return (self.low, self.high) if self.low != self.high else (self.low,)

    def some_values(self) -> tuple[Any, ...]:
        """A few values that stand for all: its ends."""
        return self.values()

    def ends(self) -> tuple[Any, ...]:
        """The smallest and the largest value."""
        return self.low, self.high

    def holds(self, value: object) -> bool:
        """Whether the parameter may take this value."""
        return isinstance(value, (int, float)) and self.low <= value <= self.high

    def clamp(self, value: Any) -> Any:
        """The value it holds that is nearest to this one; the lowest for None."""
        return self.low if value is None else min(max(value, self.low), self.high)

    def edge(self, value: float, near: float) -> End | None:
        """At which end a value lies.

        Args:
            near: share of the span, in the logarithm if it is searched so, that counts as its end.
        """
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        if low == high:
            return None
        place = (at - low) / (high - low)
        if place <= near + 1e-9:
            return "low"
        return "high" if place >= 1 - near - 1e-9 else None

    def to_yaml(self) -> Any:
        """As it stands in a study file."""
        return {"low": self.low, "high": self.high, "log": self.log}


Range = Fixed | Choice | IntRange | FloatRange


def one_of(values: Iterable[Scalar]) -> Fixed | Choice:
    """A list of these values, each once, or the value if there is only one."""
    distinct = tuple(dict.fromkeys(values))
    return Choice(distinct) if len(distinct) > 1 else Fixed(distinct[0])


def _check_order(low: float, high: float) -> None:
    if not low <= high:
        raise ValueError(f"low must not exceed high, but got low {low} and high {high}")
