"""One damaged study: its log is not begun again over results, its files are made again, and no command stumbles."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damaging import diagnosed, halve
from small_study import Watching, World
from stored_study import build_study
from study_fixtures import EMPTY_FIGURE

from harness.errors import HarnessError
from harness.report import style
from harness.results.event_types import VerdictReached
from harness.results.paths import StudyFolder, home
from harness.study import coordinator
from harness.study.studies import list_studies, remove_study

Harness = Callable[..., tuple[int, str, str]]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- a lost log -------------------------------------------------------------------------------------------------


def gone(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def torn(path: Path) -> None:
    """Only half of the first line is left, which a killed process may leave of a log that had no event."""
    path.write_bytes(path.read_bytes().splitlines()[0][:40])


@pytest.mark.parametrize("damage", [gone, empty, torn])
@pytest.mark.parametrize("kept", ["all", "study.json", "checkpoints"])
def test_a_lost_log_beside_results_is_refused_and_nothing_is_written(
    copied: World, damage: Callable[[Path], None], kept: str
) -> None:
    folder = copied.folder()
    damage(folder.events)
    if kept != "all":
        for path in set(folder.path.iterdir()) - {folder.path / kept, folder.events}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = contents(folder.path)
    with pytest.raises(HarnessError, match=r"gone or empty.*Restore the log.*AS=newname.*`harness rm tiny`"):
        copied.run()
    assert contents(folder.path) == before
    [finding] = [finding for finding in diagnosed(fix=True).left if finding.where == "events.jsonl"]
    assert "gone or empty" in str(finding) and finding.repair is None
    assert contents(folder.path) == before
    assert [row.state for row in list_studies()] == ["damaged"]
    remove_study(folder)
    assert list_studies() == [] and not folder.path.exists()


def test_a_study_that_was_killed_before_its_first_event_begins(
    canned_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that was killed right after it: neither has lost anything."""

    def killed(*words: Any) -> None:
        raise SystemExit

    canned_world.write(trials=1)
    for step in ("StudyCreated", "write_study"):
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(coordinator, step, killed)
            canned_world.run()
        assert not canned_world.folder().study_json.exists()
    canned_world.run()
    assert canned_world.folder().study_json.exists() and len(canned_world.of(VerdictReached)) == 1


# --- files that are made again ------------------------------------------------------------------------------------


def json_of_another(path: Path) -> None:
    path.write_text('{"name": "other", "study": {}, "digest": "0", "classes": []}')


def arrays_of_another(path: Path) -> None:
    np.savez(path, images=np.zeros((2, 4, 4, 3), np.uint8), labels=np.arange(2))


FILES = ("data_card", "manifest", "test_labels", "thumbnails", "mistakes", "study_json")


def told(path: Path) -> Any:
    """What a file says, whatever bytes it takes; of study.json, which names the folder of the images, its identity."""
    if path.name == "study.json":
        return {key: value for key, value in json.loads(path.read_text()).items() if key != "study"}
    if path.suffix != ".npz":
        return path.read_bytes()
    with np.load(path) as stored:
        return {name: stored[name].tolist() for name in stored.files}


@pytest.mark.parametrize("damage", ["gone", "half", "another study's"])
def test_a_finished_study_makes_its_files_again(copied: World, damage: str) -> None:
    folder = copied.folder()
    paths = [getattr(folder, name) for name in FILES]
    before = [told(path) for path in paths]
    for path in paths:
        other = arrays_of_another if path.suffix == ".npz" else json_of_another
        {"gone": gone, "half": halve, "another study's": other}[damage](path)
    watching = Watching()
    assert copied.run(watching=watching).already_finished
    assert [told(path) for path in paths] == before
    assert not watching.jobs
    assert diagnosed().well, list(diagnosed().lines())


def test_a_damaged_file_of_importances_is_computed_again(copied: World) -> None:
    folder = copied.folder()
    folder.importance.write_text("{")
    assert copied.run().already_finished
    assert diagnosed().well, list(diagnosed().lines())


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the figures of pages empty: each takes a second."""
    monkeypatch.setattr(style, "_svg", lambda figure: EMPTY_FIGURE)


# --- commands -----------------------------------------------------------------------------------------------------

PARTS = ("study.json", "data_card.json", "importance.json", "thumbnails.npz", "mistakes.npz", "manifest.csv")
CONTENTS = {
    "half": None,
    "a list": b"[]",
    "an object": b"{}",
    "a number": b'{"study": 7, "classes": 7}',
    "no text": b"\xff",
}


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("part", [*PARTS, "predictions", "events.jsonl", "optuna.log"])
@pytest.mark.parametrize("content", CONTENTS)
def test_no_command_ends_in_a_traceback_because_of_one_damaged_file(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, part: str, content: str
) -> None:
    served: list[str] = []
    monkeypatch.setattr("harness.tracking.ui.serve", lambda study, **options: served.append(study) or 0)
    small: dict[str, Any] = {"classes": ("dark", "light"), "trials": 2, "seeds": 2, "images": 24, "groups": None}
    folder, _ = build_study("one", **small), build_study("two", **small)
    places = list(folder.predictions.iterdir()) if part == "predictions" else [folder.path / part]
    for path in places:
        if not path.exists():
            path.write_text("{}")
        data = CONTENTS[content]
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if data is None else data)
    for words in (("list",), ("report", "one"), ("ui", "one"), ("log", "one"), ("compare", "one", "two")):
        code, out, err = harness(*words)
        assert "Traceback" not in out + err, (words, err)
        assert code == 0 or err.count("\n") == 1, (words, err)
        if words[0] == "list":
            assert code == 0 and "one" in out and "two" in out
    code, out, err = harness("rm", "--yes", "one")
    assert code == 0, err
    assert [row.name for row in list_studies()] == ["two"]


def test_a_study_of_which_nothing_can_be_read_is_listed_and_removed(harness: Harness) -> None:
    folder = StudyFolder("lost")
    (folder.checkpoints / "x").mkdir(parents=True)
    folder.study_json.mkdir()
    folder.events.mkdir()
    code, out, _ = harness("list")
    assert code == 0 and "lost" in out and "damaged" in out and "harness doctor lost" in out
    for command in ("report", "ui", "log", "pack", "sync", "doctor"):
        code, out, err = harness(command, "lost")
        assert code != 0 and "Traceback" not in out + err, (command, out, err)
    assert harness("rm", "--yes", "lost")[0] == 0
    assert not folder.path.exists()


# --- a home that cannot be written ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_figures")
def test_a_home_that_cannot_be_written_lists_and_reports(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = build_study("one")
    folder.lock.parent.mkdir()
    folder.lock.touch()
    real = os.open

    def read_only(path: Any, flags: int, *words: Any, **options: Any) -> int:
        if str(path).startswith(str(home())) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, *words, **options)

    monkeypatch.setattr(os, "open", read_only)
    code, out, _ = harness("list")
    assert code == 0 and "finished" in out
    assert harness("report", "one")[0] == 0
    assert harness("log", "one")[0] == 0
    for words in (("rm", "--yes", "one"), ("doctor", "one"), ("sync", "one")):
        code, out, err = harness(*words)
        assert (code, err.count("\n")) == (4, 1) and "cannot write" in err, (words, out, err)
    assert folder.events.exists()


def test_a_home_that_cannot_be_made_is_one_line(
    harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    for place in (tmp_path / "file" / "below", tmp_path / "file"):
        monkeypatch.setenv("HARNESS_HOME", str(place))
        assert harness("list") == (0, "There are no studies yet; `make study NAME=microscopy` starts one.\n", "")
        assert harness("report", "one")[0] == 2
        code, _, err = harness("study", "microscopy", "--trials", "1")
        assert (code, err.count("\n")) == (4, 1) and "HARNESS_HOME" in err, err


def test_the_runs_of_a_damaged_study_are_removed_from_mlflow_too(copied: World) -> None:
    copied.folder().study_json.write_text("{")
    remove_study(copied.folder())
    connection = sqlite3.connect(home() / "mlflow.db")
    assert (
        connection.execute("SELECT name FROM experiments WHERE lifecycle_stage = 'active' AND name = 'tiny'").fetchall()
        == []
    )
    connection.close()
