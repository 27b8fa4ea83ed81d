"""Every parameter takes a value, a list and a range, and refuses by name what is misspelt or out of range."""

from __future__ import annotations

from typing import Any

import pytest

from harness.config.load import parse
from harness.config.parameters import PARAMETERS
from harness.config.ranges import Choice, Fixed, FloatRange, IntRange
from harness.config.space import space
from harness.errors import ConfigError

NUMBERS = [name for name, parameter in PARAMETERS.items() if parameter.kind != "choice"]
NAMES = [name for name in PARAMETERS if name not in NUMBERS]


def inside(name: str) -> list[Any]:
    """Two values that a parameter may take."""
    parameter = PARAMETERS[name]
    if name == "weights":
        return ["bundled", "none"]
    if parameter.kind == "choice":
        return list(parameter.choices[:2]) or ["resnet18", "vgg11"]
    if parameter.kind == "int":
        return [2, 3]
    return [0.2, 0.4]


def parsed(name: str, value: Any) -> Any:
    """What fine-tuning searches for a parameter that the file gives this value; long enough for every schedule."""
    study = parse({"epochs": 10, "strategies": ["fine_tuning"], "search": {name: value}}, "x.yaml")
    return space(study, "fine_tuning").ranges[name]


def refusal(name: str, value: Any) -> str:
    with pytest.raises(ConfigError) as error:
        parsed(name, value)
    return str(error.value)


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_takes_a_value_and_a_list(name: str) -> None:
    values = inside(name)
    only = "default" if name == "weights" else values[0]  # the label of a study's only weights
    assert parsed(name, values[0]) == parsed(name, values[:1]) == Fixed(only)
    assert parsed(name, values) == Choice(tuple(values))


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_takes_a_range(name: str) -> None:
    low, high = inside(name)
    kind = IntRange if PARAMETERS[name].kind == "int" else FloatRange
    assert parsed(name, {"low": low, "high": high}) == kind(low=low, high=high)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_out_of_range_is_refused_by_name(name: str) -> None:
    parameter = PARAMETERS[name]
    assert parameter.low is not None and parameter.high is not None
    for wrong in (parameter.low if parameter.low_open else parameter.low - 1, parameter.high * 2, "many", True):
        for entry in (wrong, [wrong, inside(name)[0]], {"low": wrong, "high": inside(name)[1]}):
            assert f"search.{name}: must" in refusal(name, entry), entry
    assert f"search.{name}: low must not exceed high" in refusal(
        name, {"low": inside(name)[1], "high": inside(name)[0]}
    )


@pytest.mark.parametrize("name", [name for name in NAMES if PARAMETERS[name].choices])
def test_a_name_that_is_none_of_the_parameter_s_is_refused_with_those_there_are(name: str) -> None:
    for entry in ("frozzen", ["frozzen", inside(name)[0]], 3):
        said = refusal(name, entry)
        assert f"search.{name}: must be one of {', '.join(PARAMETERS[name].choices)}" in said


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_misspelt_parameter_is_refused_by_name_with_the_one_that_was_meant(name: str) -> None:
    for wrong in (f"{name}s", name[:-1]):
        assert f"search.{wrong}: unknown; did you mean {name}?" in refusal(wrong, 1)


def test_a_parameter_that_is_like_none_is_refused_with_all_there_are() -> None:
    assert f"search.zzz: unknown; the parameters are {', '.join(PARAMETERS)}" in refusal("zzz", 1)
