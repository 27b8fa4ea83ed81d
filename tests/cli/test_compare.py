"""`harness compare` as a user runs it: one page, or one clear error and nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.config.study import StudyConfig


def study(root: Path, name: str) -> None:
    """A study that has been created, and has done nothing yet."""
    folder = root / "home" / name
    folder.mkdir(parents=True)
    config = StudyConfig.model_validate({"search": {"backbone": "resnet18"}}).model_dump(mode="json", by_alias=True)
    (folder / "study.json").write_text(json.dumps({"name": name, "study": config, "fingerprint": {}}))


def test_two_studies_make_one_page_and_a_wrong_name_makes_none(
    tmp_path: Path, harness: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    study(tmp_path, "one")
    study(tmp_path, "two")
    code, _, err = harness("compare", "one", "three")
    assert code == 2
    assert "there is no study 'three' here" in err
    assert "there are: one, two" in err
    assert "Traceback" not in err
    assert not (tmp_path / "reports").exists()

    monkeypatch.setenv("HARNESS_NAMES", "one two")  # as `make compare NAMES="one two"` hands them on
    code, out, err = harness("compare")
    assert code == 0, err
    page = tmp_path / "reports" / "compare+one+two" / "index.html"
    assert str(page) in out
    assert "Both studies have no verdict." in page.read_text(encoding="utf-8")
