"""One search parameter: the values that a study file may give it, and when it has an effect."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.config.ranges import Choice, Fixed, FloatRange, IntRange, Range
from harness.config.strategies import Strategy

Values = Mapping[str, Any]  # of a configuration's fields, by name


@dataclass(frozen=True)
class Rule:
    """A function of other fields of the configuration. `of` names the fields in the order of `answer`'s arguments."""

    of: tuple[str, ...]
    answer: Callable[..., Any]

    def __call__(self, values: Values, *before: Any) -> Any:
        """Call `answer` with `before` and then the values of the fields in `of`."""
        return self.answer(*before, *(values[name] for name in self.of))


ALWAYS = Rule((), lambda: True)
AS_IT_IS = Rule((), lambda value: value)


@dataclass(frozen=True)
class Parameter:
    """One field of TrialConfig that a study file may fix or search."""

    name: str
    kind: Literal["float", "int", "choice"]
    doc: str  # description of the study file's key
    label: str  # on the page
    default: Any  # for strategies that are not in `by_strategy`, and for configurations in which it is not active
    short: str = ""  # label in a line with many parameters; "": use `label`
    low: float | None = None
    high: float | None = None
    low_open: bool = False  # whether `low` itself is excluded
    choices: tuple[str, ...] = ()  # () allows any name
    by_strategy: Mapping[Strategy, Any] = field(default_factory=dict)  # defaults of single strategies
    settled: Mapping[Strategy, Any] = field(default_factory=dict)  # values that a strategy fixes by its definition
    first_is_default: bool = False  # the first value of a list in the file replaces `default`
    off: Any = None  # the value that switches it off, which is not shown; None: there is no such value
    active: Rule = ALWAYS  # whether it has an effect, given the other values; if not, it takes its default
    asked: Rule | None = None  # whether the sampler suggests it, if that is more restricted than `active`
    simplified: Rule = AS_IT_IS  # (value, others) -> the first value that has the same effect, given the others
    has_defaults: bool = False  # whether a search starts with a default configuration for each of its values
    sharing: bool = False  # whether the activations of frozen stages, which trials share, depend on it

    @property
    def short_label(self) -> str:
        """The label in a line with many parameters."""
        return self.short or self.label

    def check(self, value: object) -> Any:
        """Return the value in the parameter's type.

        Raises:
            ValueError: the value is not allowed; states the rule and the value.
        """
        if self.kind == "choice":
            if not isinstance(value, str) or (self.choices and value not in self.choices):
                rule = f"one of {', '.join(self.choices)}" if self.choices else "a name"
                raise ValueError(f"must be {rule}, but got {value!r}")
            return value
        if isinstance(value, bool):
            raise ValueError(f"must be a number, but got {value!r}")
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise ValueError(f"must be a number, but got {value!r}") from None
        if self.kind == "int" and number != int(number):
            raise ValueError(f"must be a whole number, but got {value!r}")
        low = self.low if self.low is not None else float("-inf")
        high = self.high if self.high is not None else float("inf")
        if not (low <= number <= high) or (self.low_open and number == low):
            raise ValueError(f"must lie in {'(' if self.low_open else '['}{low:g}, {high:g}], but got {value!r}")
        return int(number) if self.kind == "int" else number

    def read(self, value: object) -> Range:
        """Return the range that an entry of a study file describes: a scalar, a list, or `{low, high, log}`.

        Raises:
            ValueError: the entry is not allowed; states the rule and the value.
        """
        if isinstance(value, Range):
            value = value.to_yaml()
        if isinstance(value, (list, tuple)):
            checked = tuple(self.check(item) for item in value)
            if not checked:
                raise ValueError("a list must name at least one value")
            if len(set(checked)) != len(checked):
                raise ValueError(f"names a value twice: {list(value)}")
            return Fixed(checked[0]) if len(checked) == 1 else Choice(checked)
        if isinstance(value, dict):
            return self._read_range(value)
        return Fixed(self.check(value))

    def _read_range(self, value: dict[str, Any]) -> Range:
        if self.kind == "choice":
            raise ValueError("takes a name or a list of names, not a range")
        unknown = sorted(set(value) - {"low", "high", "log"})
        if unknown or not {"low", "high"} <= set(value):
            raise ValueError(f"a range is {{low: …, high: …, log: true|false}}, but got the keys {', '.join(value)}")
        low, high = self.check(value["low"]), self.check(value["high"])
        if self.kind == "float":
            return FloatRange(low, high, bool(value.get("log", False)))
        if value.get("log"):
            raise ValueError("log must be left out for whole numbers; list the values instead")
        return IntRange(low, high)

    def canonical(self, values: Values) -> Any:
        """Return its value in the canonical form of a configuration with these values."""
        return self.simplified(values, values[self.name]) if self.active(values) else self.default

    def is_asked(self, known: Values, ranges: Mapping[str, Range]) -> bool:
        """Return whether the sampler has to suggest it: it has an effect with some possible values of the others.

        Args:
            known: values that are fixed, or were suggested before.
            ranges: the possible values of the others.
        """
        rule = self.asked or self.active
        possible = ((known[name],) if name in known else ranges[name].values() for name in rule.of)
        return any(rule.answer(*values) for values in itertools.product(*possible))
