"""Configurations are named by the fewest parameters that tell them apart."""

from __future__ import annotations

from typing import Any

from harness.analysis.confirmed import Confirmed, Group
from harness.report.sections.configurations import NAMED_BY, config_name, configuration_section, distinguishing

NAMES = ("unfreeze_depth", "unfreeze_schedule", "head_lr", "weight_decay")


def members(*rows: tuple[Any, ...]) -> tuple[Confirmed, ...]:
    return tuple(
        Confirmed(dict(zip(NAMES, row, strict=True)), (0.8 - 0.1 * i, 0.82 - 0.1 * i)) for i, row in enumerate(rows)
    )


def test_one_parameter_names_them_where_it_tells_them_apart() -> None:
    made = members((2, "at_once", 1e-3, 1e-4), (1, "at_once", 1e-3, 1e-4), (5, "head_first", 1e-2, 0.1))
    assert distinguishing(made, NAMES) == ["unfreeze_depth"]
    assert config_name(made[0], ["unfreeze_depth"]) == "depth 2"


def test_two_parameters_where_one_is_not_enough_and_none_where_two_are_not() -> None:
    two = members((2, "at_once", 1e-3, 1e-4), (2, "head_first", 1e-3, 1e-4), (1, "at_once", 1e-3, 1e-4))
    assert distinguishing(two, NAMES) == ["unfreeze_depth", "unfreeze_schedule"]
    rows = [(d, s, h, 1e-4) for d in (1, 2) for s in ("at_once", "head_first") for h in (1e-3, 1e-2)]
    assert NAMED_BY == 2
    assert distinguishing(members(*rows), NAMES) == []


def test_a_short_name_leaves_the_rest_to_a_table() -> None:
    made = members((2, "head_first", 6.5e-2, 1.5e-6), (1, "head_first", 7.2e-2, 4.4e-5), (5, "at_once", 3e-4, 1e-4))
    section = configuration_section(Group("fine_tuning", NAMES, made, (False, True)), "balanced_accuracy")
    assert section.heading.startswith("Fine-tuning, confirmed: depth 2 scored best")
    assert section.table is not None
    assert [heading for heading, _ in section.table.columns] == ["", "depth 2", "depth 1", "depth 5"]
    assert section.table.rows[2] == ["Head learning rate", "6.5e-2", "7.2e-2", "3e-4"]
    assert section.table.rows[-1] == ["Mean validation score", "81.0 %", "71.0 %", "61.0 %"]
    assert "weight decay" not in section.pictures[0].alt


def test_few_parameters_need_no_table() -> None:
    pairs = ((1e-3, 0.1), (1e-2, 0.1), (1e-2, 0.2))
    made = tuple(Confirmed({"head_lr": rate, "weight_decay": decay}, (0.8, 0.7)) for rate, decay in pairs)
    section = configuration_section(
        Group("feature_extraction", ("head_lr", "weight_decay"), made, (False, False)), "balanced_accuracy"
    )
    assert section.table is None
    assert "head rate 1e-3, weight decay 0.1" in section.pictures[0].alt
