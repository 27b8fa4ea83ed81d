"""No command takes a file or folder of the harness itself for a study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from small_study import World

from harness.results.paths import home, names_in_home, reports

Harness = Callable[..., tuple[int, str, str]]


@pytest.fixture
def there(tmp_path: Path) -> list[Path]:
    """What the harness keeps for all studies, some of it looking like a study."""
    World(tmp_path, tmp_path / "cells").write()
    kept = [home() / "artifacts" / "tiny" / "model", reports() / "examples" / "tiny" / "index.html"]
    kept += [
        home() / name / file for name in ("artifacts", "cache", "locks") for file in ("study.json", "events.jsonl")
    ]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return kept


@pytest.mark.parametrize("name", ["artifacts", "cache", "locks", "mlflow", "mlflow.db", "optuna", "examples"])
def test_every_command_refuses_a_name_of_the_harness_and_changes_nothing(
    there: list[Path], harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*"))
    asked = [("study", "tiny", "--as", name), ("rm", "--yes", name), ("doctor", "--fix", name)]
    asked += [(word, name) for word in ("report", "log", "sync", "ui", "pack")]
    for words in asked:
        code, out, err = harness(*words)
        assert code == 2 and err.count("\n") == 1 and name in err, (words, out, err)
    assert harness("compare", name, "other")[0] == 2
    assert set(tmp_path.rglob("*")) == before
    assert all(path.read_text() == "{}" for path in there)


def test_a_study_file_of_such_a_name_runs_under_another(tmp_path: Path) -> None:
    from harness.errors import ConfigError

    world = World(tmp_path, tmp_path / "cells")
    world.write("optuna-or-not")
    with pytest.raises(ConfigError, match="AS=newname"):
        world.load("optuna-or-not")
    assert world.load("optuna-or-not", save_as="or-not").name == "or-not"


def test_what_lies_in_the_home_beside_the_studies_is_not_listed(there: list[Path], harness: Harness) -> None:
    assert names_in_home() == []
    assert "There are no studies yet" in harness("list")[1]
