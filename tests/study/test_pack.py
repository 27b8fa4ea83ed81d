"""`harness pack`: a finished study's files without images, and everything that can be made of them again."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_study import World
from stored_study import MakeStudy, make_study  # noqa: F401 - a fixture

from harness.analysis import test_predictions
from harness.analysis.test_predictions import read_file
from harness.errors import ConfigError, HarnessError, StudyHeldError
from harness.report.page import write_report
from harness.results.event_types import Explored, TestScored
from harness.results.events import EventLog, read_events
from harness.results.packed import open_stored
from harness.results.paths import StudyFolder, reports
from harness.study.lock import held
from harness.study.pack import pack_study

Harness = Callable[..., tuple[int, str, str]]
MADE = re.compile(r"made \d{4}-\d\d-\d\d \d\d:\d\d UTC")
SECRETS = ("s3cret-word", "/home/someone", "slide1")


@pytest.fixture
def study(make_study: MakeStudy, tmp_path: Path) -> StudyFolder:  # noqa: F811
    """A finished study that says more than anyone else should read."""
    told = f"From {tmp_path}/cells, kept at postgresql://me:s3cret-word@host/optuna"
    folder = make_study(study={"description": told})
    folder.manifest.write_text(f"row,path,label,split\n0,{tmp_path}/cells/a.png,a,train\n1,b/b.png,,test\n")
    np.savez(folder.mistakes, images=np.zeros((1, 8, 8, 3), np.uint8))
    folder.test_labels.write_text("row,label\n1,0\n")
    folder.checkpoints.mkdir()
    (folder.checkpoints / "best.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def packed(study: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with such a study, packed; HARNESS_HOME is not there."""
    pack_study(study, tmp_path / "examples" / "microscopy" / "study")
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "nowhere"))
    return tmp_path / "examples" / "microscopy"


def page(folder: Path) -> str:
    return MADE.sub("made", (folder / "index.html").read_text(encoding="utf-8"))


def contents(folder: Path) -> bytes:
    """Every byte of a packed study, unpacked; texts of arrays as UTF-8."""
    found = b""
    for path in sorted(folder.rglob("*")):
        found += path.name.encode()
        if path.suffix == ".gz":
            found += gzip.decompress(path.read_bytes())
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as stored:
                for array in stored.values():
                    found += " ".join(array.tolist()).encode() if array.dtype.kind == "U" else array.tobytes()
        elif path.is_file():
            found += path.read_bytes()
    return found


# --- what is made of it again -----------------------------------------------------------------------------------


def test_a_packed_study_gives_the_same_page_without_images(at_home: World, tmp_path: Path, harness: Harness) -> None:
    original = at_home.folder()
    shutil.copytree(original.path, tmp_path / "copy" / "tiny")
    code, out, err = harness("pack", "tiny", "--to", str(tmp_path / "tiny" / "study"))
    assert (code, err) == (0, "")
    assert str(tmp_path / "tiny" / "study") in out

    write_report(original)
    with_images = page(original.report)
    home = tmp_path / "nowhere"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_HOME", str(home))
        assert harness("report", str(tmp_path / "tiny"))[0] == 0
        assert "verdict 1: " in harness("log", str(tmp_path / "tiny"))[1]
    assert not home.exists(), "neither a lock nor a store is made for a study that is only read"
    for name in ("trials.csv", "summary.json"):
        assert (tmp_path / "tiny" / name).read_bytes() == (original.report / name).read_bytes()

    with pytest.MonkeyPatch.context() as patch:  # the study as it is, but for its images
        patch.setenv("HARNESS_HOME", str(tmp_path / "copy"))
        patch.setenv("HARNESS_REPORTS", str(tmp_path / "copied"))
        plain = StudyFolder("tiny")
        plain.thumbnails.unlink()
        plain.mistakes.unlink(missing_ok=True)
        write_report(plain)
        assert page(tmp_path / "tiny") == page(plain.report)
    assert "<img" in with_images and "<img" not in page(tmp_path / "tiny")


def test_a_written_study_gives_the_same_page_without_images(make_study: MakeStudy, tmp_path: Path) -> None:  # noqa: F811
    study = make_study(looks=2)
    place = pack_study(study).place
    assert place == reports() / "examples" / "microscopy" / "study"
    study.thumbnails.unlink()
    write_report(study)
    write_report(open_stored(str(place)))
    for name in ("trials.csv", "summary.json"):
        assert (place.parent / name).read_bytes() == (study.report / name).read_bytes()
    assert page(place.parent) == page(study.report)


def test_predictions_and_events_are_packed_to_the_last_bit(study: StudyFolder) -> None:
    place = pack_study(study).place
    files = sorted(path.name for path in study.predictions.iterdir())
    assert files == sorted(path.name for path in (place / "predictions").iterdir())
    for name in files:
        with np.load(study.predictions / name) as before, np.load(place / "predictions" / name) as after:
            for key in ("probabilities", "labels", "rows"):
                assert np.array_equal(before[key], after[key]) and before[key].dtype == after[key].dtype
            numbers = [np.unique(one["groups"], return_inverse=True)[1].tolist() for one in (before, after)]
            assert numbers[0] == numbers[1], "a resampling by groups takes them in the order of their names"
    kept = read_events(place / "events.jsonl.gz")
    assert [(event.seq, event.at, event.kind) for event in kept] == [
        (event.seq, event.at, event.kind) for event in read_events(study.events)
    ]


@pytest.mark.parametrize(("objective", "kept"), [("balanced_accuracy", "answers"), ("log_loss", "probabilities")])
def test_what_is_scored_after_the_verdict_is_packed_as_the_objective_needs_it(
    canned_world: World, tmp_path: Path, objective: str, kept: str
) -> None:
    """Eighty of the hundred files of an example are of this kind; as classes they take a fortieth of the room."""
    canned_world.write(objective=objective, data_sizes=[0.5, 1.0], shifts=["blur"])
    canned_world.run()
    study = canned_world.folder()
    study.thumbnails.unlink()
    study.mistakes.unlink(missing_ok=True)
    place = pack_study(study, tmp_path / "tiny" / "study").place
    explored = {Path(one.predictions).name for one in canned_world.of(Explored)}
    judged = {Path(one.predictions).name for one in canned_world.of(TestScored)}
    assert explored and judged and not explored & judged
    for name in explored | judged:
        with np.load(place / "predictions" / name) as stored:
            assert (kept if name in explored else "probabilities") in stored, name
    write_report(study)
    write_report(open_stored(str(place)))
    for name in ("trials.csv", "summary.json"):
        assert (place.parent / name).read_bytes() == (study.report / name).read_bytes()
    assert page(place.parent) == page(study.report)


def test_packed_classes_that_are_not_those_of_the_log_are_not_read(
    canned_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canned_world.write(shifts=["blur"])
    canned_world.run()
    place = pack_study(canned_world.folder(), tmp_path / "tiny" / "study").place
    packed = open_stored(str(place))
    event = canned_world.of(Explored)[0]
    found = read_file(packed, event)
    assert not isinstance(found, str)
    monkeypatch.setattr(test_predictions, "_MOST_PROBABILITIES", found.probabilities.size - 1)
    assert read_file(packed, event) == "it cannot be read", "so many classes would fill the memory"
    monkeypatch.setattr(test_predictions, "_MOST_PROBABILITIES", found.probabilities.size)

    path = place / "predictions" / Path(event.predictions).name
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["answers"] = (arrays["answers"] + 1) % 3
    np.savez_compressed(path, **arrays)
    assert read_file(packed, event) == "it does not give the metrics that the log holds for this model"


def test_packing_again_gives_the_same_bytes_and_replaces_them(study: StudyFolder) -> None:
    place = pack_study(study).place
    before = {path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    (place / "old.txt").write_text("from an earlier version")
    pack_study(study)
    assert {path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()} == before
    assert [path.name for path in place.parent.iterdir()] == ["study"], "no half of a pack is left beside it"


def test_compare_takes_packed_studies_beside_those_that_are_here(
    make_study: MakeStudy,  # noqa: F811
    harness: Harness,
    tmp_path: Path,
) -> None:
    one, two = make_study("one"), make_study("two", skill={"fine_tuning": 1.7})
    assert harness("compare", "one", "two")[0] == 0
    together = reports() / "compare+one+two"
    values = json.loads((together / "compare.json").read_text(encoding="utf-8"))
    pack_study(two, tmp_path / "kept" / "two" / "study")
    shutil.rmtree(two.path)
    shutil.rmtree(together)
    code, _, err = harness("compare", "one", str(tmp_path / "kept" / "two"))
    assert code == 0, err
    assert json.loads((together / "compare.json").read_text(encoding="utf-8")) == values
    raw = (together / "index.html").read_text(encoding="utf-8")
    assert "one …/two" in raw and str(tmp_path) not in raw
    pack_study(one, tmp_path / "kept" / "one" / "study")
    code, _, err = harness("compare", "one", str(tmp_path / "kept" / "one"))
    assert code == 2 and "2 of these studies are called one" in err
    shutil.rmtree(tmp_path / "runs")
    assert harness("compare", str(tmp_path / "kept" / "one"), str(tmp_path / "kept" / "two"))[0] == 0
    assert not (tmp_path / "runs").exists()


# --- what is in it ----------------------------------------------------------------------------------------------


def test_no_image_model_password_or_path_of_this_machine_is_packed(study: StudyFolder, tmp_path: Path) -> None:
    secrets = (*SECRETS, str(tmp_path))
    before = contents(study.path) + study.events.read_bytes()
    assert all(secret.encode() in before for secret in secrets), "the test looks for nothing"
    place = pack_study(study).place
    kept = {path.name for path in place.iterdir()}
    assert kept == {"study.json", "data_card.json", "events.jsonl.gz", "manifest.csv.gz", "predictions"}
    after = contents(place)
    assert not [secret for secret in secrets if secret.encode() in after]
    assert gzip.decompress((place / "manifest.csv.gz").read_bytes()).decode().splitlines()[1] == "0,…/a.png,a,train"


def test_a_really_trained_study_is_packed_without_its_folders(at_home: World, tmp_path: Path) -> None:
    place = pack_study(at_home.folder(), tmp_path / "packed").place
    after = contents(place)
    assert b"blue/slide00_0.png" in after, "names below the folder of the images stay"
    for secret in (str(at_home.root), str(at_home.images), f"{Path.home()}/"):
        assert secret.encode() not in after
    assert not list(place.rglob("*thumb*")) + list(place.rglob("*mistake*")) + list(place.rglob("*label*"))


# --- what is refused --------------------------------------------------------------------------------------------


def test_a_study_that_runs_or_has_no_verdict_is_not_packed(make_study: MakeStudy, tmp_path: Path) -> None:  # noqa: F811
    folder = make_study("open", until="scored")
    with pytest.raises(ConfigError, match="open has no verdict yet"):
        pack_study(folder)
    with pytest.raises(ConfigError, match="cut has not come to its end"):
        pack_study(make_study("cut", session=False))
    finished = make_study("finished")
    with held(finished), pytest.raises(StudyHeldError, match="runs"):
        pack_study(finished)
    assert not (tmp_path / "reports").exists()


def test_a_folder_that_holds_something_else_is_left_alone(make_study: MakeStudy, tmp_path: Path) -> None:  # noqa: F811
    one, two = make_study("one"), make_study("two")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("dear")
    other = pack_study(two, tmp_path / "other").place
    for place in (mine, other, two.path, tmp_path / "runs" / "three"):
        with pytest.raises(ConfigError, match=r"--to"):
            pack_study(one, place)
    assert (mine / "letter.txt").read_text() == "dear"
    assert StudyFolder.at(other).name == "two"
    assert two.events.exists() and not (tmp_path / "runs" / "three").exists()


def test_a_pack_that_would_say_something_else_is_not_written(
    study: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rounded(path: Path, *, only_answers: bool) -> bytes:
        import io

        with np.load(path) as stored:
            arrays = dict(stored) | {"probabilities": stored["probabilities"].astype(np.float16)}
        stream = io.BytesIO()
        np.savez(stream, **arrays)
        return stream.getvalue()

    monkeypatch.setattr("harness.study.pack._predictions", rounded)
    with pytest.raises(HarnessError, match="nothing was written"):
        pack_study(study)
    assert not list((reports() / "examples" / "microscopy").iterdir())


def test_a_path_without_a_stored_study_is_refused_in_one_line(tmp_path: Path, harness: Harness) -> None:
    (tmp_path / "empty" / "study").mkdir(parents=True)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "study.json").write_text('{"name": "half"}')
    for path in ("no/such/folder", "W" * 300 + "/", "./", str(tmp_path / "empty"), str(tmp_path / "half"), "a\0/b"):
        for words in (("report", path), ("log", path)):
            code, _, err = harness(*words)
            assert (code, err.count("\n")) == (2, 1), (words, err)
            assert "there is no study" in err and "`harness pack` writes it" in err
    assert harness("compare", "no/one", "no/other")[0] == 2
    assert not (tmp_path / "home").exists()


def test_commands_that_change_a_study_take_no_path(packed: Path, harness: Harness) -> None:
    before = contents(packed)
    for words in (("doctor",), ("sync",), ("rm", "--yes"), ("ui",), ("study",), ("pack",)):
        assert harness(words[0], str(packed), *words[1:])[0] == 2, words
    assert contents(packed) == before
    with pytest.raises(ConfigError, match="outside HARNESS_HOME"), held(open_stored(str(packed))):
        pass


def test_where_a_path_leads_and_where_its_page_goes(
    packed: Path, study: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (packed, packed / "study"):
        folder = open_stored(str(path))
        assert (folder.name, folder.path, folder.report) == ("microscopy", packed / "study", packed)
    shutil.copytree(packed / "study", tmp_path / "other")
    assert open_stored(str(tmp_path / "other")).report == tmp_path / "other-report", "never among files of others"
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "runs"))
    assert open_stored(str(tmp_path / "runs" / "microscopy")) == StudyFolder("microscopy")


def test_a_name_without_a_separator_means_the_study_that_is_here(
    packed: Path, harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.results.packed import is_path

    monkeypatch.chdir(packed.parent)
    assert is_path("microscopy")
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "runs"))
    assert not is_path("microscopy")
    assert is_path("./microscopy")
    assert not is_path("") and not is_path("other")


# --- hostile packs ----------------------------------------------------------------------------------------------


def refused(harness: Harness, packed: Path, reason: str) -> None:
    """The page is refused in one line, and none is written."""
    code, out, err = harness("report", str(packed))
    assert code in (1, 2), (out, err)
    assert reason in err and err.count("\n") == 1 and "Traceback" not in err, err
    assert not (packed / "index.html").exists()


@pytest.mark.parametrize("file", ["study.json", "events.jsonl.gz", "data_card.json", "predictions", "mistakes.npz"])
def test_a_link_that_leads_out_of_the_folder_is_not_followed(packed: Path, harness: Harness, file: str) -> None:
    inside, outside = packed / "study" / file, packed.parent / "outside"
    if inside.exists():
        inside.rename(outside)
    inside.symlink_to(outside)
    refused(harness, packed, "is a link that leads out of it")


def test_the_folder_of_the_files_is_no_link_either_and_a_link_within_it_is_followed(
    packed: Path, harness: Harness
) -> None:
    (packed / "study" / "study.json").rename(packed / "study" / "real.json")
    (packed / "study" / "study.json").symlink_to("real.json")
    assert harness("report", str(packed))[0] == 0
    (packed / "index.html").unlink()
    (packed / "study").rename(packed.parent / "outside")
    (packed / "study").symlink_to(packed.parent / "outside")
    refused(harness, packed, "is a link that leads out of it")


def test_a_pipe_or_a_link_to_itself_is_not_waited_for(packed: Path, harness: Harness) -> None:
    os.mkfifo(packed / "study" / "importance.json")
    refused(harness, packed, "importance.json is no file")
    (packed / "study" / "importance.json").unlink()
    (packed / "study" / "importance.json").symlink_to("importance.json")
    refused(harness, packed, "importance.json is a link")


def test_a_log_or_an_array_that_would_fill_the_memory_is_refused(packed: Path, harness: Harness) -> None:
    log = packed / "study" / "events.jsonl.gz"
    sound = log.read_bytes()
    log.write_bytes(gzip.compress(bytes(64 << 20)))
    refused(harness, packed, "would unpack to more than")
    log.write_bytes(sound)
    [file, *_] = (packed / "study" / "predictions").iterdir()
    np.savez_compressed(file, probabilities=np.zeros(64 << 20, np.uint8))
    refused(harness, packed, "would unpack to more than")


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("study.json", '{"name": "../../x", "study": {}}', "has no name that a study may have"),
        ("study.json", '{"name": "x", "study": {"trials": "many"}}', "describes no study of this version"),
        ("study.json", '{"name": "x"}', "describes no study of this version"),
        ("study.json", "[" * 100_000, "has no name that a study may have"),
        ("study.json", '{"name": "x", "pad": "' + "x" * (1 << 25) + '"}', "has no name that a study may have"),
        ("data_card.json", "[]", "data_card.json is no JSON object"),
        ("data_card.json", '{"images": "\x1b[2J"}', "is no JSON"),
        ("data_card.json", '{"classes": 7}', "holds what no study holds"),
        ("importance.json", "{" + " " * (1 << 25) + "}", "which no study needs"),
        ("events.jsonl.gz", "no gzip", "is damaged and cannot be unpacked"),
    ],
)
def test_what_no_study_says_is_refused_in_one_line(
    packed: Path, harness: Harness, file: str, content: str, reason: str
) -> None:
    (packed / "study" / file).write_text(content)
    refused(harness, packed, reason)


def test_a_packed_study_in_the_home_is_not_continued(study: StudyFolder, tmp_path: Path) -> None:
    place = pack_study(study).place
    shutil.rmtree(study.path)
    shutil.copytree(place, study.path)
    assert study.events.name == "events.jsonl.gz" and len(read_events(study.events)) > 3
    with pytest.raises(ConfigError, match="can be read and not continued"):
        EventLog(study.events)
