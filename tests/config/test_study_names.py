"""Names that a study may not have, because the harness keeps something of all studies under them."""

from __future__ import annotations

import pytest

from harness.config.study_names import check_study_name, is_study_name
from harness.errors import ConfigError


@pytest.mark.parametrize(
    "name", ["artifacts", "Artifacts", "cache", "LOCKS", "mlflow", "mlflow.db", "MLflow-mine", "optuna", "Optuna.log"]
)
def test_a_name_of_the_harness_is_refused_in_upper_and_lower_case(name: str) -> None:
    assert not is_study_name(name)
    with pytest.raises(ConfigError, match="AS=newname") as caught:
        check_study_name(name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["examples", "Benchmarks", "calibration"])
def test_a_folder_of_the_reports_is_no_study_either(name: str) -> None:
    """`harness rm examples` would remove the pages of all packed studies."""
    assert not is_study_name(name)


@pytest.mark.parametrize("name", ["artifacts2", "my-cache", "my.mlflow", "blood-cells", "locks-1", "a" * 64])
def test_other_names_are_free(name: str) -> None:
    assert is_study_name(name)
    check_study_name(name)
