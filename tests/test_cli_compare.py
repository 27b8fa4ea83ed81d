"""`harness compare` as a user runs it: one page, or one clear error and nothing written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from harness.config.study import StudyConfig

ROOT = Path(__file__).resolve().parent.parent


def compare(*words: str, root: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    made = {**os.environ, "HARNESS_HOME": str(root / "home"), "HARNESS_REPORTS": str(root / "reports"), **environment}
    return subprocess.run(
        [sys.executable, "-m", "harness", "compare", *words],
        cwd=ROOT, env=made, capture_output=True, text=True, timeout=240,
    )  # fmt: skip


def study(root: Path, name: str) -> None:
    """A study that has been created, and has done nothing yet."""
    folder = root / "home" / name
    folder.mkdir(parents=True)
    config = StudyConfig.model_validate({"search": {"backbone": "resnet18"}}).model_dump(mode="json", by_alias=True)
    (folder / "study.json").write_text(json.dumps({"name": name, "study": config, "fingerprint": {}}))


def test_two_studies_make_one_page_and_a_wrong_name_makes_none(tmp_path: Path) -> None:
    study(tmp_path, "one")
    study(tmp_path, "two")
    wrong = compare("one", "three", root=tmp_path)
    assert wrong.returncode == 2
    assert "there is no study 'three' here" in wrong.stderr
    assert "there are: one, two" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert not (tmp_path / "reports").exists()

    done = compare(root=tmp_path, HARNESS_NAMES="one two")  # as `make compare NAMES="one two"` hands them on
    assert done.returncode == 0, done.stderr
    page = tmp_path / "reports" / "compare+one+two" / "index.html"
    assert str(page) in done.stdout
    assert "Both studies have no verdict." in page.read_text(encoding="utf-8")
