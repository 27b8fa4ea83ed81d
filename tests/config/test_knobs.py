"""Every knob takes a value, a list and a range, and refuses by name what is misspelt or out of range."""

from __future__ import annotations

from typing import Any

import pytest

from harness.config.load import parse
from harness.config.space import space
from harness.config.study import KNOBS, FloatRange, IntRange
from harness.errors import ConfigError

NUMBERS = [name for name, knob in KNOBS.items() if knob.kind != "choice"]
NAMES = [name for name in KNOBS if name not in NUMBERS]


def inside(name: str) -> list[Any]:
    """Two values that a knob may take."""
    knob = KNOBS[name]
    if knob.kind == "choice":
        return list(knob.choices[:2]) or ["resnet18", "vgg11"]
    if knob.kind == "int":
        return [2, 3]
    return [0.2, 0.4]


def parsed(name: str, value: Any) -> Any:
    """What fine-tuning searches for a knob that the file gives this value; long enough for every schedule."""
    study = parse({"epochs": 10, "strategies": ["fine_tuning"], "search": {name: value}}, "x.yaml")
    return space(study, "fine_tuning").entries[name]


def refusal(name: str, value: Any) -> str:
    with pytest.raises(ConfigError) as error:
        parsed(name, value)
    return str(error.value)


@pytest.mark.parametrize("name", KNOBS)
def test_a_knob_takes_a_value_and_a_list(name: str) -> None:
    values = inside(name)
    assert parsed(name, values[0]) == values[0]
    assert parsed(name, values) == tuple(values)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_takes_a_range(name: str) -> None:
    low, high = inside(name)
    kind = IntRange if KNOBS[name].kind == "int" else FloatRange
    assert parsed(name, {"low": low, "high": high}) == kind(low=low, high=high)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_out_of_range_is_refused_by_name(name: str) -> None:
    knob = KNOBS[name]
    assert knob.low is not None and knob.high is not None
    for wrong in (knob.low if knob.low_open else knob.low - 1, knob.high * 2, "many", True):
        for entry in (wrong, [wrong, inside(name)[0]], {"low": wrong, "high": inside(name)[1]}):
            assert f"search.{name}: must" in refusal(name, entry), entry
    assert f"search.{name}: low must not exceed high" in refusal(
        name, {"low": inside(name)[1], "high": inside(name)[0]}
    )


@pytest.mark.parametrize("name", [name for name in NAMES if KNOBS[name].choices])
def test_a_name_that_is_none_of_the_knob_s_is_refused_with_those_there_are(name: str) -> None:
    for entry in ("frozzen", ["frozzen", inside(name)[0]], 3):
        said = refusal(name, entry)
        assert f"search.{name}: must be one of {', '.join(KNOBS[name].choices)}" in said


@pytest.mark.parametrize("name", KNOBS)
def test_a_misspelt_knob_is_refused_by_name_with_the_one_that_was_meant(name: str) -> None:
    for wrong in (f"{name}s", name[:-1]):
        assert f"search.{wrong}: unknown; did you mean {name}?" in refusal(wrong, 1)


def test_a_knob_that_is_like_none_is_refused_with_all_there_are() -> None:
    assert f"search.zzz: unknown; the knobs are {', '.join(KNOBS)}" in refusal("zzz", 1)
