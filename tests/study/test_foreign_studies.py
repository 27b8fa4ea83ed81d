"""A study's folder from someone else: no command follows a link out of it, or takes more memory than a study needs."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from damaging import edit_json
from small_study import World
from stored_study import build_study
from study_fixtures import EMPTY_FIGURE

from harness.doctor.check import examine
from harness.errors import ConfigError, HarnessError
from harness.report import style
from harness.report.page import write_report
from harness.results.compressed import is_stored
from harness.results.event_types import TrialFinished
from harness.results.events import EventLog, encode, first_event, read_events, scan_log
from harness.results.paths import MOST_JSON, StudyFolder, home, names_in_home
from harness.study.pack import pack_study
from harness.study.studies import list_studies
from harness.study.sync import sync
from harness.training.resume import ResumePoint, identity

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


# --- sizes ----------------------------------------------------------------------------------------------------------

BOMB = 200 << 20  # bytes that a bomb unpacks to
MOST = 120 << 20  # bytes that a command may take for it; most of it is one JSON text as long as is read


def peak(work: Callable[[], object]) -> int:
    """The most bytes that Python and numpy held for the work at any time."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def array_bomb(path: Path) -> None:
    """An array of zeros, which shrinks to a thousandth."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in ("probabilities", "labels", "groups", "rows", "images"):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                stream.write(npy_header((BOMB // 5,)))
                for _ in range(BOMB // 5 >> 20):
                    stream.write(bytes(1 << 20))


def npy_header(shape: tuple[int, ...], kind: str = "|u1") -> bytes:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def header_bomb(path: Path, shape: tuple[int, ...] = (1 << 40,), kind: str = "<f8") -> None:
    """Headers that claim terabytes in an array of eight bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("probabilities", "labels", "groups", "rows", "images"):
            archive.writestr(f"{name}.npy", npy_header(shape, kind) + bytes(8))


def empty_texts(path: Path) -> None:
    """Terabytes of texts without a letter, which take no byte of the file."""
    header_bomb(path, kind="<U0")


@pytest.mark.parametrize("bomb", [array_bomb, header_bomb, empty_texts])
def test_arrays_are_not_unpacked_beyond_what_their_file_allows(
    study: StudyFolder, harness: Harness, tmp_path: Path, bomb: Callable[[Path], None]
) -> None:
    bomb(tmp_path / "bomb.npz")
    for path in (study.thumbnails, study.mistakes, *study.predictions.iterdir()):
        shutil.copyfile(tmp_path / "bomb.npz", path)
    write_report(StudyFolder("two"))  # so that only the study itself counts

    def look() -> None:
        assert harness("report", "one")[0] == 0
        assert harness("compare", "one", "two")[0] == 0
        assert harness("pack", "one")[0] == 1

    assert peak(look) < MOST
    found = {finding.where: finding.what for finding in examine(study, fix=False).left}
    assert found["predictions/" + min(path.name for path in study.predictions.iterdir())] == "it cannot be read"
    assert found["mistakes.npz"] == "it cannot be read"


@pytest.mark.parametrize("file", ["thumbnails.npz", "mistakes.npz", "predictions"])
@pytest.mark.parametrize("bomb", [array_bomb, header_bomb, empty_texts])
def test_arrays_of_a_packed_study_are_refused(
    packed: Path, harness: Harness, file: str, bomb: Callable[[Path], None]
) -> None:
    place = packed / "study"
    bomb(next((place / "predictions").iterdir()) if file == "predictions" else place / file)
    code, _, err = harness("report", str(packed))
    assert code == 2 and "would unpack to more than" in err and err.count("\n") == 1, err


@pytest.mark.parametrize("content", ["zeros", "one event", "lists"])
def test_a_packed_log_is_not_unpacked_beyond_its_bound(packed: Path, harness: Harness, content: str) -> None:
    """Also one whose lines are right up to there."""
    log = packed / "study" / "events.jsonl.gz"
    sound = gzip.decompress(log.read_bytes())
    with gzip.open(log, "wb", compresslevel=1) as stream:
        stream.write(sound)
        piece = {
            "zeros": bytes(1 << 20),
            "one event": sound.splitlines(keepends=True)[-1] * 9000,
            "lists": b"[" * (1 << 20),
        }
        for _ in range(BOMB // len(piece[content])):
            stream.write(piece[content])

    def look() -> None:
        for command in ("report", "log"):
            code, _, err = harness(command, str(packed))
            assert code == 1 and err.count("\n") == 1, err
            assert "would unpack to more than" in err or "is damaged in line" in err

    assert peak(look) < MOST


def test_a_packed_manifest_is_never_unpacked(packed: Path, study: StudyFolder, harness: Harness) -> None:
    """No command needs it: it is for people."""
    with gzip.open(packed / "study" / "manifest.csv.gz", "wb", compresslevel=1) as stream:
        for _ in range(BOMB >> 20):
            stream.write(bytes(1 << 20))
    write_report(study)

    def look() -> None:
        for words in (("report", str(packed)), ("log", str(packed)), ("compare", "two", str(packed))):
            assert harness(*words)[0] == 0

    assert peak(look) < MOST


def long_end(log: Path) -> None:
    """A hundred megabytes without a line end, as if the last event were being written."""
    os.truncate(log, log.stat().st_size + (100 << 20))


def long_line(log: Path) -> None:
    """A line of a hundred megabytes between two events."""
    *lines, last = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines))
    os.truncate(log, log.stat().st_size + (100 << 20))
    with log.open("ab") as stream:
        stream.write(b"\n" + last)


def long_beginning(log: Path) -> None:
    sound = log.read_bytes()
    os.truncate(log, 0)
    os.truncate(log, 100 << 20)
    with log.open("ab") as stream:
        stream.write(b"\n" + sound)


@pytest.mark.parametrize(
    ("damage", "state"), [(long_end, "finished"), (long_line, "damaged"), (long_beginning, "damaged")]
)
def test_a_line_of_a_hundred_megabytes_is_not_kept_in_memory(
    study: StudyFolder, harness: Harness, damage: Callable[[Path], None], state: str
) -> None:
    count = len(read_events(study.events))
    damage(study.events)
    write_report(StudyFolder("two"))
    harness("doctor", "two")

    def look() -> None:
        assert [row.state for row in list_studies()] == [state, "finished"]
        code, _, err = harness("report", "one")
        assert code == (state == "damaged") and "Traceback" not in err
        assert harness("log", "one")[0] == 0
        code, out, _ = harness("doctor", "one")
        assert code == 1 and f"{100 << 20}"[:5] in out

    assert peak(look) < MOST
    reading = scan_log(study.events)
    [found] = reading.damages
    assert found.end - found.start >= 100 << 20
    assert len(reading.events) == count
    assert study.events.read_bytes()[found.start : found.end].strip(b"\0\n") == b""


def test_a_line_as_long_as_is_read_is_an_event_and_a_longer_one_is_not_written(tmp_path: Path) -> None:
    from harness.results.event_types import StudyCreated

    log = EventLog(tmp_path / "one" / "events.jsonl")
    spare = MOST_JSON - len(encode(log.append(StudyCreated({"text": ""}, {}))))
    log.close()
    os.truncate(tmp_path / "one" / "events.jsonl", 0)
    log = EventLog(tmp_path / "one" / "events.jsonl")
    with pytest.raises(ValueError, match="must have at most"):
        log.append(StudyCreated({"text": "x" * (spare + 20)}, {}))
    assert len(log) == 0 and (tmp_path / "one" / "events.jsonl").stat().st_size == 0
    event = log.append(StudyCreated({"text": "x" * (spare - 20)}, {}))
    assert read_events(tmp_path / "one" / "events.jsonl") == [event]
    assert first_event(tmp_path / "one" / "events.jsonl") == event
    log.close()


def test_a_line_of_lists_within_lists_is_damage(study: StudyFolder, harness: Harness) -> None:
    text = '{"seq":1,"at":"","kind":"study_created","data":' + "[" * 100_000 + "]" * 100_000 + "}"
    study.events.write_bytes(f'{text[:-1]},"crc":{zlib.crc32(text.encode())}}}\n'.encode())
    assert [row.state for row in list_studies()] == ["damaged", "finished"]
    for command in ("report", "log", "doctor", "sync"):
        _, out, err = harness(command, "one")
        assert "Traceback" not in out + err and err.count("\n") <= 1


@pytest.mark.parametrize("file", ["study.json", "data_card.json", "importance.json"])
def test_a_json_file_is_not_read_beyond_its_bound(study: StudyFolder, harness: Harness, file: str) -> None:
    (study.path / file).write_bytes(b"{")
    os.truncate(study.path / file, 200 << 20)
    write_report(StudyFolder("two"))

    def look() -> None:
        assert [row.name for row in list_studies()] == ["one", "two"]
        for words in (("report", "one"), ("doctor", "one")):
            _, out, err = harness(*words)
            assert "Traceback" not in out + err and err.count("\n") <= 1, (words, err)

    assert peak(look) < MOST


@pytest.mark.parametrize("file", ["study.json", "data_card.json", "importance.json"])
def test_lists_within_lists_are_no_json_file_of_a_study(
    study: StudyFolder, harness: Harness, empty_database: Path, file: str
) -> None:
    shutil.copyfile(empty_database, home() / "mlflow.db")
    (study.path / file).write_bytes(b'{"a": ' + b"[" * 100_000)
    for words in (("report", "one"), ("compare", "one", "two"), ("doctor", "one"), ("sync", "one")):
        _, out, err = harness(*words)
        assert "Traceback" not in out + err and "RecursionError" not in out + err, (words, err)


def test_a_resume_file_is_not_unpacked(tmp_path: Path) -> None:
    """torch writes it without compression, and would read one with it."""
    point = ResumePoint(identity("a"), [], {}, [], 1.0, {"weights": torch.zeros(1 << 16)}, {}, None)
    path = tmp_path / "one.resume"
    point.save(path)
    assert is_stored(path) and ResumePoint.load(path, identity("a")) is not None
    packed = io.BytesIO()
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in plain.infolist():
            archive.writestr(member.filename, plain.read(member))
    path.write_bytes(packed.getvalue())
    assert not is_stored(path) and ResumePoint.load(path, identity("a")) is None
