"""Numbers read as people write them, and texts lose paths and passwords."""

from __future__ import annotations

import pytest

from harness.analysis import wording


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("see /home/someone/secret/trial.log now", "see …/trial.log now"),
        ("File '/opt/x y/z.py', line 3", "File '…/x y/z.py', line 3"),
        ("C:\\Users\\someone\\cells", "…/cells"),
        ("~/cells/images", "…/images"),
        ("/data", "…/data"),
        ("file:///home/someone/mlruns", "…/mlruns"),
        ("sqlite:///C:/Users/x/mlflow.db", "…/mlflow.db"),
        ("sqlite:////home/someone/mlflow.db", "…/mlflow.db"),
        ("sqlite:///runs/mlflow.db", "sqlite:///runs/mlflow.db"),
        ("https://someone:secret@host:5000/a/b", "https://someone:***@host:5000/a/b"),
        ("postgresql://me@host/db?password=secret", "postgresql://me@host/db?password=***"),
        ("\x1b\x07/home/someone/red", "\\x1b\\x07…/red"),
        ("\\x1b\\x07red", "\\x1b\\x07red"),
        ("a\u202eb \x1b[31m\ncaf\udce9", "a\\u202eb \\x1b[31m\ncaf\\xe9"),
        ("models:/m-4c1f", "models:/m-4c1f"),
        ("class a/b and 3/4 of 1/2", "class a/b and 3/4 of 1/2"),
        ("images/b/broken.png", "images/b/broken.png"),
        ("2 of 16 slots", "2 of 16 slots"),
    ],
)
def test_paths_keep_their_last_part_and_addresses_lose_their_password(text: str, clean: str) -> None:
    assert wording.redact(text) == clean


def test_cleaning_reaches_keys_and_lists() -> None:
    assert wording.redact_all({"/a/b/c": ["/d/e/f", 1, None]}) == {"…/c": ["…/f", 1, None]}


@pytest.mark.parametrize(
    ("value", "objective", "text"),
    [
        (0.0412, "balanced_accuracy", "+4.1"),
        (-0.0412, "balanced_accuracy", f"{wording.MINUS}4.1"),
        (-0.0001, "accuracy", "0.0"),
        (0.04, "log_loss", "+0.040"),
    ],
)
def test_differences_are_points_or_decimals_with_a_true_minus(value: float, objective: str, text: str) -> None:
    assert wording.difference(value, objective, signed=True) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(3e-5, "3e-5"), (0.00032, "3.2e-4"), (0.3, "0.3"), (0, "0"), (None, wording.DASH), (float("nan"), wording.DASH)],
)
def test_rates_are_short(value: float | None, text: str) -> None:
    assert wording.rate(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.84, "0.8 s"), (42, "42 s"), (700, "12 min"), (11_100, "3 h 05 min"), (None, wording.DASH)]
)
def test_durations_choose_their_unit(value: float | None, text: str) -> None:
    assert wording.duration(value) == text


def test_lists_end_with_and() -> None:
    assert wording.listed(["a"]) == "a"
    assert wording.listed(["a", "b", "c"]) == "a, b and c"


@pytest.mark.parametrize(("value", "text"), [(0.873, "87 %"), (0.9999, "> 99 %"), (0.985, "98 %"), (0.001, "< 1 %")])
def test_no_probability_reads_as_certain(value: float, text: str) -> None:
    assert wording.probability_short(value) == text
    words = text.replace(">", "more than").replace("<", "less than")
    assert wording.probability(value) == (words if words != text else f"about {text}")
