"""Files are whole or not there, and inert in a spreadsheet."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from harness.atomic import atomic_write
from harness.results.csv import csv_text, quote, unquote


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "-", "--1", "\n=1", "\uff1d1+1"]
)
def test_a_formula_gets_an_apostrophe(text: str) -> None:
    assert quote(text) == f"'{text}"


@pytest.mark.parametrize("value", ["-1", "+2.5", "-3e-05", "a=b", "", 3, -2.5, None])
def test_a_plain_number_or_word_stays(value: object) -> None:
    assert quote(value) is value


def test_the_headings_are_quoted_too() -> None:
    assert csv_text(pd.DataFrame({"=a": ["=b"], "n": [-1.5]})) == "'=a,n\n'=b,-1.5\n"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    atomic_write(path, "old")
    with pytest.raises(UnicodeEncodeError):
        atomic_write(path, "half \ud800")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("page.html", "old")]


def test_a_file_is_on_the_disk_before_it_takes_the_place_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "page.html"
    atomic_write(path, "old")
    synced: list[tuple[int, str]] = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append((os.fstat(number).st_size, path.read_text())))
    atomic_write(path, "the new one")
    assert synced == [(len("the new one"), "old")]
    assert path.read_text() == "the new one"


@pytest.mark.parametrize("text", ["cell", "=1+1", "'=1+1", "''@x", "'plain", "-5", "'-5", "-5 cells", "", "'"])
def test_a_quoted_text_is_told_from_one_that_stood_there(text: str) -> None:
    assert unquote(str(quote(text))) == text
