"""The values that a search parameter may take in a study: one value, a list, or a range of whole or of real numbers.

The four classes have the same methods, so that other code does not need to distinguish them. Only
`harness.search.optuna_params`, which translates them into Optuna's distributions, does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

Scalar = bool | int | float | str
End = Literal["low", "high"]

SOME = 8  # `some_values` of a range with more whole numbers leaves some out
EDGE_LEAST = 4  # least number of whole numbers in a range with edges; in a smaller one, half of the values are ends


@dataclass(frozen=True)
class Fixed:
    """One value, which is not searched; None if the parameter has no meaning for the strategy."""

    value: Scalar | None

    is_searched: ClassVar[bool] = False
    is_continuous: ClassVar[bool] = False

    def values(self) -> tuple[Any, ...]:
        """Return every value."""
        return (self.value,)

    def some_values(self) -> tuple[Any, ...]:
        """Return values that represent all."""
        return self.values()

    def ends(self) -> tuple[Any, ...]:
        """Return values that include the smallest and the largest."""
        return self.values()

    def holds(self, value: object) -> bool:
        """Return whether the parameter may take this value."""
        return bool(value == self.value)

    def clamp(self, value: Any) -> Any:
        """Return the fixed value, whatever value is given."""
        return self.value

    def edge(self, value: float, near: float) -> End | None:
        """Return None: a fixed value has no ends."""
        return None

    def to_yaml(self) -> Any:
        """Return the form that a study file has."""
        return self.value


@dataclass(frozen=True)
class Choice:
    """A list of two or more values, names or numbers, in the order of the file."""

    options: tuple[Scalar, ...]

    is_searched: ClassVar[bool] = True
    is_continuous: ClassVar[bool] = False

    def values(self) -> tuple[Any, ...]:
        """Return every value."""
        return self.options

    def some_values(self) -> tuple[Any, ...]:
        """Return values that represent all: here all of them."""
        return self.options

    def ends(self) -> tuple[Any, ...]:
        """Return values that include the smallest and the largest: here all of them, in the order of the list."""
        return self.options

    def holds(self, value: object) -> bool:
        """Return whether the parameter may take this value."""
        return value in self.options

    def clamp(self, value: Any) -> Any:
        """Return this value if it is in the list, otherwise the first one."""
        return value if value in self.options else self.options[0]

    def edge(self, value: float, near: float) -> End | None:
        """Return None: a list has no ends that could be extended."""
        return None

    def to_yaml(self) -> Any:
        """Return the form that a study file has."""
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
        """Return every value, in increasing order."""
        return tuple(range(self.low, self.high + 1))

    def some_values(self) -> tuple[Any, ...]:
        """Return values that represent all: every one or, if there are more than SOME, some at equal steps."""
        every = range(self.low, self.high + 1)
        return tuple(every if len(every) <= SOME else every[:: len(every) // (SOME // 2)])

    def ends(self) -> tuple[Any, ...]:
        """Return the smallest and the largest value."""
        return self.low, self.high

    def holds(self, value: object) -> bool:
        """Return whether the parameter may take this value."""
        return isinstance(value, (int, float)) and self.low <= value <= self.high

    def clamp(self, value: Any) -> Any:
        """Return the nearest value in the range; the lowest one for None."""
        return self.low if value is None else min(max(value, self.low), self.high)

    def edge(self, value: float, near: float) -> End | None:
        """Return the end that equals a value, or None; a range of fewer than EDGE_LEAST values has no ends."""
        if self.high - self.low + 1 < EDGE_LEAST:
            return None
        ends: dict[int, End] = {self.low: "low", self.high: "high"}
        return ends.get(int(value))

    def to_yaml(self) -> Any:
        """Return the form that a study file has."""
        return {"low": self.low, "high": self.high}


@dataclass(frozen=True)
class FloatRange:
    """A range of real numbers, both ends included. With `log`, the sampler draws uniformly in the logarithm."""

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
        """Return the ends, which represent all values between them."""
        return (self.low, self.high) if self.low != self.high else (self.low,)

    def some_values(self) -> tuple[Any, ...]:
        """Return values that represent all: the two ends."""
        return self.values()

    def ends(self) -> tuple[Any, ...]:
        """Return the smallest and the largest value."""
        return self.low, self.high

    def holds(self, value: object) -> bool:
        """Return whether the parameter may take this value."""
        return isinstance(value, (int, float)) and self.low <= value <= self.high

    def clamp(self, value: Any) -> Any:
        """Return the nearest value in the range; the lowest one for None."""
        return self.low if value is None else min(max(value, self.low), self.high)

    def edge(self, value: float, near: float) -> End | None:
        """Return the end that a value is near to; None if it is near to neither.

        Args:
            near: largest distance, as a share of the span, that counts as near. With `log`, both are measured in the
                logarithm.
        """
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        if low == high:
            return None
        place = (at - low) / (high - low)
        if place <= near + 1e-9:
            return "low"
        return "high" if place >= 1 - near - 1e-9 else None

    def to_yaml(self) -> Any:
        """Return the form that a study file has."""
        return {"low": self.low, "high": self.high, "log": self.log}


Range = Fixed | Choice | IntRange | FloatRange


def one_of(values: Iterable[Scalar]) -> Fixed | Choice:
    """Return the distinct values as a Choice, or as Fixed if there is only one."""
    distinct = tuple(dict.fromkeys(values))
    return Choice(distinct) if len(distinct) > 1 else Fixed(distinct[0])


def _check_order(low: float, high: float) -> None:
    if not low <= high:
        raise ValueError(f"low must not exceed high, but got low {low} and high {high}")
