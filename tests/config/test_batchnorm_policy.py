"""The table of BatchNorm policies says what its type, the docstring of the model and the rules of the study say."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from harness.config.batchnorm_policy import POLICIES, BatchNormPolicy, Policy, first_same
from harness.config.parameters import PARAMETERS
from harness.model import batchnorm

STATISTICS = {
    "kept": ("kept", "running"),
    "updated_where_unfrozen": ("updated in unfrozen stages only", "batch there, otherwise running"),
    "updated_everywhere": ("updated everywhere", "batch everywhere"),
}


def row(policy: Policy) -> tuple[str, str, str]:
    """A policy as the docstring of `harness.model.batchnorm` tells it."""
    statistics, by = STATISTICS[policy.statistics]
    if policy.recalibrates:
        statistics = f"re-estimated before epoch 1, then {statistics}"
    return ("train in unfrozen stages" if policy.trains_affine else "fixed everywhere", statistics, by)


def test_the_type_names_the_policies_of_the_table_and_no_other() -> None:
    assert get_args(BatchNormPolicy) == tuple(POLICIES)
    assert PARAMETERS["batchnorm"].choices == tuple(POLICIES)


def test_the_docstring_of_the_model_says_what_the_table_says() -> None:
    rows = re.findall(r"^\| `(\w+)` +\|(.+)\|(.+)\|(.+)\|$", batchnorm.__doc__ or "", re.MULTILINE)
    assert {name: tuple(cell.strip() for cell in cells) for name, *cells in rows} == {
        name: row(policy) for name, policy in POLICIES.items()
    }


def test_no_two_policies_are_the_same() -> None:
    assert len(set(POLICIES.values())) == len(POLICIES)


@pytest.mark.parametrize(
    ("name", "frozen", "unfrozen"),
    [
        ("frozen", "frozen", "frozen"),
        ("fixed_stats", "frozen", "fixed_stats"),
        ("updated_stats", "frozen", "updated_stats"),
        ("recalibrated", "recalibrated", "recalibrated"),
        ("train_mode", "train_mode", "updated_stats"),
    ],
)
def test_a_policy_is_the_first_that_does_the_same(name: BatchNormPolicy, frozen: str, unfrozen: str) -> None:
    policy = POLICIES[name]
    assert first_same(policy, any_frozen=True, any_unfrozen=False) == frozen
    assert first_same(policy, any_frozen=False, any_unfrozen=True) == unfrozen
