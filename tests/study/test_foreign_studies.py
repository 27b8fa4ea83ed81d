"""A study's folder from someone else: no command follows a link out of it, or takes more memory than a study needs."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from damaging import edit_json
from small_study import World
from stored_study import build_study
from study_fixtures import EMPTY_FIGURE

from harness.doctor.check import examine
from harness.errors import ConfigError, HarnessError
from harness.report import style
from harness.report.page import write_report
from harness.results.event_types import TrialFinished
from harness.results.events import read_events
from harness.results.paths import StudyFolder, home, names_in_home
from harness.study.pack import pack_study
from harness.study.studies import list_studies
from harness.study.sync import sync

Harness = Callable[..., tuple[int, str, str]]
SMALL: dict[str, Any] = {"classes": ("dark", "light"), "trials": 2, "seeds": 2, "images": 24, "groups": None}
SECRET = b"s3cret-word"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study, and the folder `packed` with the same one packed; only to be copied."""
    root = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_HOME", str(root / "home"))
        patch.setenv("HARNESS_REPORTS", str(root / "reports"))
        folder = build_study("one", **SMALL)
        folder.checkpoints.mkdir()
        (folder.checkpoints / "best.safetensors").write_bytes(b"weights")
        folder.manifest.write_text("row,path,label,split\n0,a.png,dark,train\n")
        pack_study(folder, root / "packed" / "study")
    return root


@pytest.fixture
def study(built: Path, monkeypatch: pytest.MonkeyPatch) -> StudyFolder:
    """A copy of the study in this test's home, beside a sound one named `two`. Figures of pages are empty."""
    monkeypatch.setattr(style, "_svg", lambda figure: EMPTY_FIGURE)
    for name in ("one", "two"):
        shutil.copytree(built / "home" / "one", home() / name)
    edit_json(StudyFolder("two").study_json, lambda values: values.update(name="two"))
    return StudyFolder("one")


@pytest.fixture
def packed(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the packed study."""
    monkeypatch.setattr(style, "_svg", lambda figure: EMPTY_FIGURE)
    shutil.copytree(built / "packed", tmp_path / "packed")
    return tmp_path / "packed"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of the user that no study may reach."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(SECRET)
    return tmp_path / "outside"


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


# --- links ----------------------------------------------------------------------------------------------------------


def moved_out(path: Path, outside: Path) -> None:
    """The same file or folder, but it lies outside and the study links to it."""
    (path.rename if path.exists() else Path)(outside / path.name)
    path.symlink_to(outside / path.name)


def linked(path: Path, target: Path | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def by_a_chain(study: StudyFolder, outside: Path) -> None:
    """A link within the folder to another link, which leads out."""
    linked(study.path / "set-aside" / "hop", outside / "secret")
    linked(study.importance, Path("set-aside") / "hop")


LINKS: dict[str, Callable[[StudyFolder, Path], None]] = {
    "the data card": lambda study, outside: linked(study.data_card, outside / "secret"),
    "study.json": lambda study, outside: moved_out(study.study_json, outside),
    "the log": lambda study, outside: moved_out(study.events, outside),
    "the log of another study": lambda study, outside: linked(study.events, Path("..") / "two" / "events.jsonl"),
    "a device": lambda study, outside: linked(study.events, "/dev/zero"),
    "a device for the thumbnails": lambda study, outside: linked(study.thumbnails, "/dev/zero"),
    "checkpoints": lambda study, outside: moved_out(study.checkpoints, outside),
    "predictions": lambda study, outside: moved_out(study.predictions, outside),
    "a file of predictions": lambda study, outside: moved_out(next(iter(study.predictions.iterdir())), outside),
    "a checkpoint": lambda study, outside: moved_out(study.checkpoints / "best.safetensors", outside),
    "set-aside": lambda study, outside: linked(study.set_aside, outside),
    "a file that is not there": lambda study, outside: linked(study.mistakes, outside / "new"),
    "Optuna's journal": lambda study, outside: linked(study.optuna_log, outside / "secret"),
    "a chain": by_a_chain,
    "a link to itself": lambda study, outside: linked(study.importance, "importance.json"),
    "the folder above": lambda study, outside: linked(study.path / "sub" / "up", Path("..") / ".."),
    "the report": lambda study, outside: linked(study.report / "notes.txt", outside / "secret"),
}


@pytest.mark.parametrize("kind", LINKS)
def test_no_command_follows_a_link_out_of_a_study(
    study: StudyFolder, outside: Path, harness: Harness, tmp_path: Path, kind: str
) -> None:
    LINKS[kind](study, outside)
    before = contents(outside)
    code, out, err = harness("list")
    assert code == 0, err
    assert [line.split()[:2] for line in out.splitlines()[1:3]] == [["one", "damaged"], ["two", "finished"]]
    refused = (
        ("report", "one"),
        ("log", "one"),
        ("compare", "one", "two"),
        ("compare", "two", str(study.path)),
        ("pack", "one", "--to", str(tmp_path / "to")),
        ("ui", "one"),
        ("sync", "one"),
        ("doctor", "one"),
        ("doctor", "one", "--fix"),
        ("report", str(study.path)),
    )
    for words in refused:
        code, out, err = harness(*words)
        assert code == 2 and out == "", (words, out, err)
        assert "is a link that leads out of it" in err or "there is no study" in err, (words, err)
        assert SECRET.decode() not in err
    assert contents(outside) == before
    assert not (home() / "mlflow.db").exists() and not (tmp_path / "to").exists()
    for function in (lambda: sync(study, print), lambda: examine(study, fix=True), lambda: pack_study(study)):
        with pytest.raises(ConfigError, match="is a link that leads out of it"):
            function()
    code, out, err = harness("rm", "--yes", "one")
    assert code == 0, err
    assert names_in_home() == ["two"]
    assert contents(outside) == before


def test_a_pipe_in_a_study_is_not_waited_for(study: StudyFolder, harness: Harness) -> None:
    study.events.unlink()
    os.mkfifo(study.events)
    assert [(row.name, row.state) for row in list_studies()] == [("one", "damaged"), ("two", "finished")]
    for words in (("report", "one"), ("log", "one"), ("sync", "one"), ("doctor", "one", "--fix"), ("pack", "one")):
        code, _, err = harness(*words)
        assert code == 2 and "events.jsonl is no file" in err, (words, err)
    assert harness("rm", "--yes", "one")[0] == 0
    assert names_in_home() == ["two"]


def test_a_study_that_would_run_through_a_link_is_refused(copied: World, outside: Path) -> None:
    moved_out(copied.folder().checkpoints, outside)
    before = contents(outside)
    with pytest.raises(ConfigError, match="checkpoints is a link that leads out of it"):
        copied.run()
    assert contents(outside) == before


def test_a_study_whose_whole_folder_is_linked_is_the_users_own_choice(study: StudyFolder, outside: Path) -> None:
    """A big study may lie on another disk; removing it leaves what the link leads to."""
    moved_out(study.path, outside)
    write_report(study)
    assert diagnosed_of(study) == diagnosed_of(StudyFolder("two"))
    from harness.study.studies import remove_study

    assert remove_study(study)[-1] == "Its folder was a link: what it led to is still there."
    assert (outside / "one" / "events.jsonl").exists() and names_in_home() == ["two"]


def diagnosed_of(study: StudyFolder) -> list[str]:
    return [finding.where for finding in examine(study, fix=False).left]


def test_the_lock_that_optuna_left_before_the_folder_was_moved_is_no_link_of_the_study(study: StudyFolder) -> None:
    linked(study.path / "optuna.log.lock", "/from/elsewhere/one/optuna.log")
    study.check_inside()
    linked(study.path / "checkpoints" / "a.lock", "/from/elsewhere/one/optuna.log")
    with pytest.raises(ConfigError, match=r"a\.lock is a link"):
        study.check_inside()


PACKED_LINKS: dict[str, Callable[[Path, Path], None]] = {
    "the log": lambda packed, outside: moved_out(packed / "study" / "events.jsonl.gz", outside),
    "study.json": lambda packed, outside: moved_out(packed / "study" / "study.json", outside),
    "a device": lambda packed, outside: linked(packed / "study" / "importance.json", "/dev/zero"),
    "the manifest": lambda packed, outside: linked(packed / "study" / "manifest.csv.gz", outside / "secret"),
    "predictions": lambda packed, outside: moved_out(packed / "study" / "predictions", outside),
    "a file that is not there": lambda packed, outside: linked(packed / "study" / "mistakes.npz", outside / "new"),
    "the folder": lambda packed, outside: moved_out(packed / "study", outside),
    "an unknown file": lambda packed, outside: linked(packed / "study" / "a" / "b", outside / "secret"),
}


@pytest.mark.parametrize("kind", PACKED_LINKS)
def test_no_command_follows_a_link_out_of_a_packed_study(
    packed: Path, study: StudyFolder, outside: Path, harness: Harness, kind: str
) -> None:
    PACKED_LINKS[kind](packed, outside)
    before = contents(outside)
    for words in (("report", str(packed)), ("log", str(packed)), ("compare", "two", str(packed))):
        code, out, err = harness(*words)
        assert code == 2 and out == "" and "is a link that leads out of it" in err, (words, out, err)
    assert contents(outside) == before and not (packed / "index.html").exists()


def test_the_page_of_a_packed_study_is_written_through_no_link(packed: Path, outside: Path, harness: Harness) -> None:
    """`harness report FOLDER` writes to FOLDER-report beside it if the folder holds the files themselves."""
    (packed / "study").rename(packed / "one")
    linked(packed / "one-report", outside)
    before = contents(outside)
    code, _, err = harness("report", str(packed / "one"))
    assert code == 2 and "through the link one-report" in err
    assert contents(outside) == before
    (packed / "one-report").unlink()
    linked(packed / "one-report" / "index.html", outside / "secret")
    assert harness("report", str(packed / "one"))[0] == 0
    assert contents(outside) == before


@pytest.mark.parametrize("name", ["../../outside/secret", "/etc/hostname", "..", ""])
def test_a_log_that_names_a_checkpoint_elsewhere_is_damaged(study: StudyFolder, name: str) -> None:
    """A study that goes on removes the checkpoint of a trial that is no longer the best."""
    events = read_events(study.events)
    [found, *_] = [i for i, event in enumerate(events) if isinstance(event.data, TrialFinished)]
    lines = study.events.read_bytes().splitlines(keepends=True)
    values = json.loads(lines[found])
    values.pop("crc")
    values["data"]["record"]["checkpoint"] = name
    text = json.dumps(values, separators=(",", ":"))
    lines[found] = f'{text[:-1]},"crc":{zlib.crc32(text.encode())}}}\n'.encode()
    study.events.write_bytes(b"".join(lines))
    with pytest.raises(HarnessError, match=f"damaged in line {found + 1}"):
        read_events(study.events)
