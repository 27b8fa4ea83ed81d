"""The four kinds of ranges answer the same questions, each consistently with its own values."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config.parameters import PARAMETERS
from harness.config.ranges import SOME, Choice, Fixed, FloatRange, IntRange, Range, one_of

WHOLE = st.integers(-1000, 1000)
REAL = st.floats(1e-6, 1e6)
ints = st.builds(lambda a, b: IntRange(min(a, b), max(a, b)), WHOLE, WHOLE)
floats = st.builds(lambda a, b, log: FloatRange(min(a, b), max(a, b), log), REAL, REAL, st.booleans())
choices = st.lists(WHOLE, min_size=2, max_size=9, unique=True).map(lambda values: Choice(tuple(values)))
ranges = st.one_of(ints, floats, choices, WHOLE.map(Fixed))


@given(ranges)
def test_a_range_holds_its_own_values_and_ends(found: Range) -> None:
    for values in (found.values(), found.some_values(), found.ends()):
        assert values and all(found.holds(value) for value in values)
    assert set(found.some_values()) <= set(found.values())
    assert {min(found.values()), max(found.values())} <= set(found.ends())


@given(ranges, st.one_of(WHOLE, REAL, st.none()))
def test_clamping_gives_a_value_that_is_held_and_leaves_one_that_is(found: Range, wanted: Any) -> None:
    clamped = found.clamp(wanted)
    assert found.holds(clamped)
    assert found.clamp(clamped) == clamped
    if found.holds(wanted):
        assert clamped == wanted


@given(st.one_of(ints, floats), REAL)
def test_a_range_clamps_to_the_nearest_value(found: IntRange | FloatRange, wanted: float) -> None:
    nearest = [wanted] if found.holds(wanted) else found.ends()
    assert abs(found.clamp(wanted) - wanted) == min(abs(value - wanted) for value in nearest)


@given(ints)
def test_few_values_stand_for_a_wide_range_at_equal_steps(found: IntRange) -> None:
    some = found.some_values()
    assert some[0] == found.low
    assert len({b - a for a, b in itertools.pairwise(some)}) <= 1
    assert len(some) <= SOME
    assert len(found.values()) > SOME or some == found.values()


@given(st.one_of(ints, floats), st.floats(0, 0.4))
def test_an_edge_is_at_the_end_that_is_near(found: IntRange | FloatRange, near: float) -> None:
    low, high = found.ends()
    assert found.edge(low, near) in ("low", None)
    assert found.edge(high, near) in ("high", None)
    assert (found.edge(low, near) is None) == (found.edge(high, near) is None)


@given(ranges)
def test_what_is_fixed_is_not_searched(found: Range) -> None:
    assert found.is_searched == (not isinstance(found, Fixed))


@given(ranges)
def test_a_range_is_read_again_from_what_a_study_file_says_of_it(found: Range) -> None:
    real = isinstance(found, FloatRange)
    parameter = PARAMETERS["mixup" if real else "batch_size"]
    if all(parameter.low <= value <= parameter.high for value in found.ends()):  # type: ignore[operator]
        assert parameter.read(found.to_yaml()) == parameter.read(found) == found


@pytest.mark.parametrize("kind", [IntRange, FloatRange])
def test_a_range_with_its_ends_the_wrong_way_round_is_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match="low must not exceed high, but got low 3 and high 2"):
        kind(3, 2)


def test_a_range_in_the_logarithm_begins_above_zero() -> None:
    with pytest.raises(ValueError, match="a log range needs low above 0, but got 0"):
        FloatRange(0.0, 1.0, log=True)


def test_a_list_of_equal_values_is_one_value() -> None:
    assert one_of(["frozen", "frozen"]) == Fixed("frozen")
    assert one_of(["frozen", "recalibrated", "frozen"]) == Choice(("frozen", "recalibrated"))
