"""Promises that cross the floors: hostile names, passwords, code in files."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from canned_executor import Script
from finished_study import live_below
from mlflow import MlflowClient
from PIL import Image
from small_study import Watching, World, draw_images, records, runs
from stored_study import build_study
from study_fixtures import enter

from harness import cli
from harness.cli.progress import Watcher
from harness.cli.terminal import Terminal
from harness.config.study import StudyConfig
from harness.errors import ConfigError
from harness.results.event_types import StudyCreated
from harness.results.paths import StudyFolder, home
from harness.results.stored_study import stored_address
from harness.safe_text import escape_name
from harness.study.environment import environment
from harness.study.studies import remove_study
from harness.study.sync import storage_address
from harness.tracking.address import address_of

Harness = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).resolve().parent.parent
STEERS = re.compile(r"\x1b\[2J|\x1b\]|[\x07\x9b\u202e\udc80-\udcff]")
SHOWN_RAW = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
FORMULA = re.compile(r"[=+\-@\t\r]")
PLAIN_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
DATA_NAME = '<b>cells</b> "$x$" \x1b[2J\u202eend'

CLASSES = (
    "<script>document.title='ran'",
    "a \"b\" 'c' $x^2$ {{ 7*7 }} & <i>",
    "=cmd|' !A0",
    "-2+3",
    "new\nline\r\x1b[2J\x1b]0;title\x07",
    "\u202egnp.exe",
    "a\u0308 decomposed",
    "W" * 255,
    os.fsdecode(b"caf\xe9"),
    ":smile: [bold red]x",
)
FILES = (
    '"><svg onload=alert(1)>.png',
    "=1+1.png",
    "@sum.png",
    "a\nb\x1b[2J.png",
    "\u202efdp.png",
    "o\u0308.png",
    "W" * 251 + ".png",
    os.fsdecode(b"\xff\xfe.png"),
    "8.png",
    "$(touch ran).png",
    "`touch ran`.png",
    "a;b'c.png",
)


def draw_hostile(root: Path) -> Path:
    """Twelve images in each of ten classes, all of them named to do harm."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for file in FILES:
            pixels = rng.integers(0, 130, (32, 32, 3)) + np.array([label * 12, 60, 120 - label * 12])
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / file, "PNG")
    return root


class Page(HTMLParser):
    """The elements, attributes and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[tuple[World, str]]:
    """A finished study of hostile names whose trials are made up, and what a terminal got while it ran."""
    root = tmp_path_factory.mktemp("hostile")
    stream = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        live_below(patch, root)
        try:
            images = draw_hostile(root / "cells <b> \x1b[2J")
        except OSError:
            pytest.skip("this file system does not take such names")
        shutil.copyfile(empty_database, home() / "mlflow.db")
        enter(patch, Script())
        world = World(root, images, "canned")
        world.write(
            description=f"{DATA_NAME}?",
            data={"source": {"folder": str(images)}, "image_size": 32, "name": DATA_NAME},
            report={"title": DATA_NAME},
            trials=1,
        )
        with Watcher(Terminal(file=stream, force_terminal=True, width=150), "balanced_accuracy") as watcher:
            world.run(watching=watcher)  # type: ignore[arg-type]
    yield world, stream.getvalue()


@pytest.fixture
def at_home(hostile: tuple[World, str], monkeypatch: pytest.MonkeyPatch) -> World:
    live_below(monkeypatch, hostile[0].root)
    return hostile[0]


def test_hostile_names_are_text_on_the_page(at_home: World) -> None:
    raw = (at_home.folder().report / "index.html").read_text(encoding="utf-8")
    page = Page(raw)
    assert not SHOWN_RAW.search(raw)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not [tag for tag, _ in page.tags if tag in ("i", "iframe", "object", "embed", "link", "base", "form")]
    assert all((attrs["src"] or "").startswith("data:") for _, attrs in page.tags if "src" in attrs)
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    texts = {text.strip() for text in page.texts}
    assert {escape_name(name) for name in CLASSES} <= texts
    assert unicodedata.normalize("NFC", "a\u0308 decomposed") in texts
    assert any("\\x1b[2J\\u202eend" in text for text in page.texts), "the name that the study's file gives the data"


def test_hostile_names_are_values_in_the_files_for_machines(at_home: World) -> None:
    text = (at_home.folder().report / "summary.json").read_text(encoding="utf-8")
    assert sorted(json.loads(text)["data"]["classes"]) == sorted(escape_name(name) for name in CLASSES)
    for path in (at_home.folder().report / "trials.csv", at_home.folder().manifest, at_home.folder().test_labels):
        content = path.read_text(encoding="utf-8")
        assert not SHOWN_RAW.search(content), path.name
        for row in csv.reader(io.StringIO(content)):
            for cell in row:
                assert not FORMULA.match(cell) or PLAIN_NUMBER.fullmatch(cell), f"{path.name}: {cell}"
    with at_home.folder().manifest.open(newline="", encoding="utf-8") as stream:
        labels = {row["label"] for row in csv.DictReader(stream)}
    assert {"'=cmd|' !A0", "'-2+3", "W" * 255, "caf\\xe9"} <= labels


def test_hostile_names_are_text_in_mlflow(at_home: World) -> None:
    client = MlflowClient(f"sqlite:///{home() / 'mlflow.db'}")
    [parent] = runs("tiny", "study")
    children = runs("tiny", "search") + runs("tiny", "confirmation")
    assert len(children) == len(records(at_home))
    for run in [parent, *children]:
        for text in (run.info.run_name, *run.data.tags.values(), *run.data.params.values()):
            assert not SHOWN_RAW.search(text), text
    [used] = client.get_run(parent.info.run_id).inputs.dataset_inputs
    assert used.dataset.name == '<b>cells</b> "$x$" \\x1b[2J\\u202eend'
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    assert not SHOWN_RAW.search(experiment.tags["mlflow.note.content"])


def test_hostile_names_steer_no_terminal(hostile: tuple[World, str]) -> None:
    assert "feature_extraction" in hostile[1]
    assert not STEERS.search(hostile[1])


def test_files_that_cannot_be_read_are_named_without_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = draw_images(tmp_path / "cells")
    for name in FILES:
        (images / "red" / name).write_bytes(b"<html>")
    World(tmp_path, images).write()
    code, told = command(monkeypatch, capsys, tmp_path, "study", "tiny")
    assert code == 3
    assert not STEERS.search(told)
    for name in FILES:
        assert f"red/{escape_name(name)}: contains HTML" in told


def test_folders_and_tables_are_named_without_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    World(tmp_path, draw_images(tmp_path / "cells")).write()
    (tmp_path / "home" / "\x1b[2Jstudy").mkdir(parents=True)
    (tmp_path / "home" / "\x1b[2Jstudy" / "study.json").write_text("{}")
    for words in (
        ("study", "tiny", "--data", "no\x1b[2J\udcff"),
        ("study", "tiny", "--data", "no\x1b[2J.csv"),
        ("study", "tiny", "--weights", "no\x1b[2J\udcff"),
        ("study", "tiny", "--as", "no\x1b[2J"),
        ("report", "other"),
        ("compare", "one", "no\x1b[2J"),
    ):
        code, told = command(monkeypatch, capsys, tmp_path, *words)
        assert code in (2, 3), words
        assert "x1b[2J" in told
        assert not STEERS.search(told), told


def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, *words: str
) -> tuple[int, str]:
    """Run the command line here; its exit code and what it wrote."""
    import warnings

    monkeypatch.chdir(folder)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(sys, "argv", ["harness", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    shown = capsys.readouterr()
    return int(ended.value.code or 0), shown.out + shown.err


# --- names of studies -------------------------------------------------------------------------------------------

NAMES = ["../x", "a;touch p", "$(touch p)", "$(shell touch p)", "`touch p`", "a\nb", "-x", "", "x/../../y", "W" * 65]


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_study_name_ends_with_2_and_leaves_no_trace(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    World(tmp_path, tmp_path / "cells").write()
    before = set(tmp_path.rglob("*"))
    asked = [(word, "--", name) for word in ("study", "report", "inspect", "plan")]
    asked += [("study", "tiny", f"--as={name or ' '}"), ("rm", "--yes", "--", name), ("ui", "--", name or " ")]
    for words in asked:
        code, told = command(monkeypatch, capsys, tmp_path, *words)
        assert code == 2, (words, told)
        assert "Traceback" not in told
        assert set(tmp_path.rglob("*")) == before, words
    code, _ = command(monkeypatch, capsys, tmp_path, "compare", "--", "tiny", name)
    assert code == 2
    assert set(tmp_path.rglob("*")) - {tmp_path / "home"} == before


@pytest.mark.parametrize(
    ("target", "value"),
    [
        *(("study", value) for value in ("../x", "a;touch ran", "$(touch ran)", "$(shell touch ran)", "';touch ran;'")),
        *((target, "$(shell touch ran)") for target in ("ui", "compare", "report")),
    ],
)
def test_make_hands_on_values_and_runs_none_of_them(tmp_path: Path, target: str, value: str) -> None:
    """Every variable at once: make would run what stands in one while it reads its own file."""
    names = ("NAME", "NAMES", "AS", "DATA", "WEIGHTS", "TRIALS", "EPOCHS", "WORKERS", "DEVICE", "HOST")
    made = {**os.environ, "HARNESS_HOME": str(tmp_path / "home"), "HARNESS_REPORTS": str(tmp_path / "reports")}
    done = subprocess.run(
        ["make", "-s", target, *(f"{name}={value}" for name in names)],
        cwd=ROOT,
        env=made,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert not (ROOT / "ran").exists()
    assert not [path for path in tmp_path.rglob("*") if path != tmp_path / "home"]


# --- passwords --------------------------------------------------------------------------------------------------

SECRET = "s3cr/t@word"
ADDRESS = "http://me:s3cret-word@127.0.0.1:9/mlflow"  # nobody listens on the discard port
DATABASE = "postgresql+psycopg://me:s3cret-word@127.0.0.1:9/optuna"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    enter(monkeypatch, Script())
    made = World(tmp_path, draw_images(tmp_path / "cells"), "canned")
    made.write(trials=1, tracking_uri=ADDRESS, storage=DATABASE)
    return made


def test_a_password_in_an_address_is_stored_and_told_nowhere(world: World) -> None:
    watching = Watching()
    world.run(watching=watching)
    changed = {"tracking_uri": ADDRESS.replace("me", "you"), "storage": DATABASE.replace("//me", "//you")}
    world.write(trials=1, description="Changed?", **changed)
    assert world.run().already_finished
    assert any("http://me:***@127.0.0.1:9" in text for text in watching.texts)
    assert any("The storage postgresql+psycopg://me:***@127.0.0.1:9/optuna did not" in t for t in watching.texts)
    assert "s3cret-word" not in "".join(watching.texts)
    assert world.of(StudyCreated)[0].study["tracking_uri"] == ADDRESS.replace("s3cret-word", "***")
    stored = json.loads(world.folder().study_json.read_text())
    assert stored["study"]["tracking_uri"] == "http://you:***@127.0.0.1:9/mlflow"
    assert stored["study"]["storage"] == "postgresql+psycopg://you:***@127.0.0.1:9/optuna"
    assert not {"tracking_uri", "storage"} & set(stored["fingerprint"])
    holders = [
        path
        for folder in ("home", "reports")
        for path in (world.root / folder).rglob("*")
        if path.is_file() and b"s3cret-word" in path.read_bytes()
    ]
    assert holders == []


POSTGRES = "postgresql+psycopg://me:***@127.0.0.1:9/db"  # as a study's folder holds it
WHOLE = POSTGRES.replace("***", SECRET)


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyFolder:
    """A study's folder as it lies there after a run; its file is not where the command is given."""
    from harness.study.identity import without_passwords

    folder = StudyFolder("tiny")
    folder.path.mkdir(parents=True)
    study = StudyConfig(tracking_uri=WHOLE)
    folder.study_json.write_text(json.dumps({"study": without_passwords(study)}))
    assert stored_address(folder, "tracking_uri") == POSTGRES
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    (tmp_path / "studies").mkdir()
    return folder


def test_a_missing_password_is_asked_for_and_nothing_is_removed(stored: StudyFolder) -> None:
    with pytest.raises(ConfigError, match=r"postgresql\+psycopg://me:\*\*\*@127.*MLFLOW_TRACKING_URI.*studies/"):
        address_of(POSTGRES)
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI"):
        remove_study(stored)
    assert stored.study_json.exists()


def test_the_address_comes_from_the_environment(stored: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", WHOLE)
    assert address_of(POSTGRES) == WHOLE
    monkeypatch.setenv("MLFLOW_TRACKING_URI", POSTGRES)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cr/t@word")
    assert address_of(POSTGRES) == "postgresql+psycopg://me:s3cr%2Ft%40word@127.0.0.1:9/db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://other:5000")
    assert address_of(POSTGRES) == "http://other:5000"


def test_the_address_comes_from_a_study_file_that_names_the_same(stored: StudyFolder, tmp_path: Path) -> None:
    (tmp_path / "studies" / "a.yaml").write_text("no: [yaml\n")
    file = tmp_path / "studies" / "other.yaml"  # a study may have another name than its file
    file.write_text(f"tracking_uri: {WHOLE}\n")
    assert address_of(POSTGRES) == WHOLE
    for changed in (WHOLE.replace("127.0.0.1", "elsewhere"), WHOLE.replace("me:", "you:"), WHOLE + "x"):
        file.write_text(f"tracking_uri: {changed}\n")
        with pytest.raises(ConfigError, match="only the stored study names it"):
            address_of(POSTGRES)
    file.write_text(f"storage: {WHOLE}\ndescription: {WHOLE}\n")
    with pytest.raises(ConfigError, match="only the stored study names it"):
        address_of(POSTGRES)


def test_the_address_of_a_storage_comes_from_study_file_or_environment(
    stored: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="HARNESS_STORAGE, or name it as storage in a file of studies/"):
        storage_address(POSTGRES)
    monkeypatch.setenv("HARNESS_STORAGE", WHOLE)
    assert storage_address(POSTGRES) == WHOLE
    monkeypatch.delenv("HARNESS_STORAGE")
    file = tmp_path / "studies" / "tiny.yaml"
    file.write_text(f"storage: {WHOLE}\n")
    assert storage_address(POSTGRES) == WHOLE
    file.write_text(f"storage: {POSTGRES}\n")
    with pytest.raises(ConfigError, match="HARNESS_STORAGE_PASSWORD"):
        storage_address(POSTGRES)
    monkeypatch.setenv("HARNESS_STORAGE_PASSWORD", "s3cr/t@word")
    assert storage_address(POSTGRES) == "postgresql+psycopg://me:s3cr%2Ft%40word@127.0.0.1:9/db"


# --- credentials for an address that only a stored study names ------------------------------------------------------

CREDENTIALS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_AUTH")


class Listener(ThreadingHTTPServer):
    """A server of someone else that remembers the headers of each request."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                listener.heard.append(f"{self.path} {self.headers}")
                self.send_error(404)

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _answer  # noqa: N815 - the names that http.server calls

            def log_message(self, *words: object) -> None: ...

        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def elsewhere() -> Iterator[Listener]:
    with Listener() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def foreign(elsewhere: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyFolder:
    """A finished study from someone else, whose study.json and log name that server."""
    for name in list(os.environ):
        if name.startswith("MLFLOW_TRACKING"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    small: dict[str, Any] = {"classes": ("dark", "light"), "trials": 2, "seeds": 2, "images": 24, "groups": None}
    return build_study("tiny", study={"tracking_uri": elsewhere.address}, **small)


COMMANDS = (("sync", "tiny"), ("doctor", "tiny", "--fix"), ("ui", "tiny"), ("rm", "--yes", "tiny"))


@pytest.mark.parametrize("name", CREDENTIALS)
def test_no_credential_goes_to_an_address_that_only_a_stored_study_names(
    stored: StudyFolder, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert address_of("http://elsewhere:5000") == "http://elsewhere:5000"
    monkeypatch.setenv(name, SECRET)
    with pytest.raises(ConfigError, match=f"only the stored study names it, and {name} would be sent there"):
        address_of("http://elsewhere:5000")
    with pytest.raises(ConfigError, match="only the stored study names it, and it needs a password"):
        address_of("http://me:***@elsewhere:5000")


def test_credentials_are_not_sent_to_a_server_that_only_a_stored_study_names(
    foreign: StudyFolder, elsewhere: Listener, monkeypatch: pytest.MonkeyPatch, harness: Harness
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    for words in COMMANDS:
        code, out, err = harness(*words)
        said = " ".join((out if words[0] == "doctor" else err).split())
        assert code == (1 if words[0] == "doctor" else 2), (words, out, err)
        assert "only the stored study names it, and MLFLOW_TRACKING_PASSWORD would be sent there" in said, words
        assert "MLFLOW_TRACKING_URI" in said and SECRET not in out + err and "Traceback" not in out + err
    assert elsewhere.heard == []
    assert foreign.events.exists()


@pytest.mark.parametrize("file", [".mlflow/credentials", ".netrc"])
def test_credentials_in_files_of_the_user_are_not_sent_either(
    foreign: StudyFolder, elsewhere: Listener, tmp_path: Path, file: str
) -> None:
    path = tmp_path / "user" / file
    path.parent.mkdir(parents=True)
    path.write_text(f"default login me password {SECRET}\n")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=r"netrc would be sent there|~/\.mlflow/credentials would be sent there"):
        address_of(elsewhere.address)
    if file == ".netrc":  # the user names this server there
        path.write_text(f"machine 127.0.0.1 login me password {SECRET}\ndefault login me password {SECRET}\n")
        assert address_of(elsewhere.address) == elsewhere.address


def test_a_user_without_credentials_sends_a_stored_study_to_its_server(
    foreign: StudyFolder, elsewhere: Listener, harness: Harness
) -> None:
    code, _, err = harness("sync", "tiny")
    assert code == 4 and "does not answer" in err  # it answers 404
    assert elsewhere.heard and "uthorization" not in "".join(elsewhere.heard)


def test_credentials_are_sent_to_a_server_that_the_user_names(
    foreign: StudyFolder, elsewhere: Listener, monkeypatch: pytest.MonkeyPatch, harness: Harness, tmp_path: Path
) -> None:
    """The same address, from a file of studies/ where the command is given, or from the environment."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "mine.yaml").write_text(f"tracking_uri: {elsewhere.address}\n")
    assert harness("sync", "tiny")[0] == 4
    assert f"Bearer {SECRET}" in elsewhere.heard[-1]
    elsewhere.heard.clear()
    shutil.rmtree(tmp_path / "studies")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", elsewhere.address)
    assert harness("sync", "tiny")[0] == 4
    assert f"Bearer {SECRET}" in elsewhere.heard[-1]


def test_a_database_that_only_a_stored_study_names_is_neither_written_nor_moved_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harness: Harness
) -> None:
    """`doctor --fix` moves a damaged database aside, and Optuna makes its tables in whatever file it is given."""
    mine = tmp_path / "thesis.db"
    mine.write_text("chapter one")
    small: dict[str, Any] = {"classes": ("dark", "light"), "trials": 2, "seeds": 2, "images": 24, "groups": None}
    for name, study in (("one", {"tracking_uri": f"sqlite:///{mine}"}), ("two", {"storage": f"sqlite:///{mine}"})):
        folder = build_study(name, study=study, **small)
        for words in (("sync", name), ("doctor", name, "--fix"), ("rm", "--yes", name)):
            code, out, err = harness(*words)
            assert code in (1, 2) and "only the stored study names it" in " ".join((out + err).split()), words
        assert folder.events.exists()
    assert mine.read_text() == "chapter one" and list(tmp_path.glob("thesis*")) == [mine]


def test_the_recorded_environment_comes_from_an_allow_list(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "HARNESS_SECRET", "USER", "HOSTNAME"):
        monkeypatch.setenv(name, "s3cret-word")
    facts = environment("cpu", 1, 1)
    assert set(facts) == {
        "harness",
        "python",
        "torch",
        "torchvision",
        "optuna",
        "mlflow",
        "numpy",
        "pandas",
        "platform",
        "device",
        "threads",
        "workers",
        "commit",
    }
    assert "s3cret-word" not in json.dumps(facts)
    assert str(Path.home()) not in json.dumps(facts)


TELEMETRY = """
import {module}
import mlflow.telemetry.client
print(mlflow.telemetry.client.get_telemetry_client() is not None)
"""


@pytest.mark.parametrize(
    "module",
    [
        "harness.tracking.mlflow_store as m; m.import_mlflow()",
        pytest.param("harness.benchmarks.baseline_loop", marks=pytest.mark.slow),  # imports torch as well
    ],
)
def test_mlflow_sends_no_telemetry_unless_the_user_turned_it_on(module: str) -> None:
    quiet = ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "CI", "GITHUB_ACTIONS", "PYTEST_CURRENT_TEST")
    made = {name: value for name, value in os.environ.items() if name not in quiet}
    code = TELEMETRY.format(module=module)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=made, capture_output=True, text=True, timeout=240)
    assert done.stdout.strip().endswith("False"), done.stderr
