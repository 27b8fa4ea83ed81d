"""`harness log`, `doctor` and `sync` as a user runs them: words, exit codes, and a terminal that stays whole."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from small_study import World

from harness.results.paths import StudyFolder
from harness.study.lock import held

ROOT = Path(__file__).resolve().parents[2]
Harness = Callable[..., tuple[int, str, str]]


@pytest.fixture
def study(copied: World) -> StudyFolder:
    """A finished study, in this test's home."""
    return copied.folder()


def test_the_log_tells_the_study_in_lines(study: StudyFolder, harness: Harness) -> None:
    code, out, _ = harness("log", "tiny")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].endswith("(UTC)")
    assert "session 1 started: torch" in out and "session 1 finished after" in out
    assert "fine_tuning/0 mobilenet_v3_small, depth 3" in out and "complete, balanced accuracy" in out
    assert "verdict 1: " in out and "logged to MLflow as models:/m-" in out
    assert "epoch 1:" not in out
    assert "fine_tuning/0 epoch 1: balanced accuracy" in harness("log", "tiny", "--epochs")[1]
    assert harness("log", "tiny", "--problems")[1] == "Nothing went wrong.\n"


def test_a_torn_log_and_escape_sequences_are_told_in_plain_text(study: StudyFolder, harness: Harness) -> None:
    from harness.results.event_types import TrialInterrupted
    from harness.results.events import EventLog

    log = EventLog(study.events)
    reason = "worker died: \x1b]0;owned\x07\x1b[2J"
    log.append(TrialInterrupted("fine_tuning/0", 1, "worker_died", reason))
    log.close()
    with study.events.open("ab") as stream:
        stream.write(b'{"seq":')
    code, out, err = harness("log", "tiny", "--problems")
    assert code == 0
    assert "the last one, is torn (7 bytes)" in out
    assert "\\x1b]0;owned\\x07" in out and "\x1b" not in out + err


def test_the_log_names_the_zone_of_its_times(
    study: StudyFolder, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    monkeypatch.setenv("TZ", "XYZ-5")
    time.tzset()
    try:
        assert harness("log", "tiny", "--local")[1].splitlines()[0].endswith("(XYZ)")
        assert harness("log", "tiny")[1].splitlines()[0].endswith("(UTC)")
    finally:
        monkeypatch.undo()
        time.tzset()


def test_doctor_exits_0_where_all_is_well_1_where_not_and_75_on_a_running_study(
    study: StudyFolder, harness: Harness
) -> None:
    code, out, _ = harness("doctor", "tiny")
    assert code == 0, out
    assert "tiny: all is well" in out
    study.thumbnails.unlink()
    code, out, _ = harness("doctor", "tiny")
    assert code == 1
    assert "Wrong     thumbnails.npz: it is gone" in out and "tiny: 1 thing wrong" in out
    with held(study):
        code, out, err = harness("doctor", "tiny", "--fix")
    assert code == 75 and f"being run by process {os.getpid()}" in err
    code, out, _ = harness("doctor", "tiny", "--fix")
    assert code == 0 and "Repaired  thumbnails.npz: written again" in out
    assert study.thumbnails.exists()


def test_doctor_finds_a_study_whose_study_json_is_gone(study: StudyFolder, harness: Harness) -> None:
    study.study_json.unlink()
    assert harness("log", "tiny")[0] == 0
    assert harness("doctor", "tiny", "--fix")[0] == 0
    assert study.study_json.exists()


def test_a_damaged_log_names_the_doctor(study: StudyFolder, harness: Harness) -> None:
    lines = study.events.read_bytes().splitlines(keepends=True)
    study.events.write_bytes(b"".join([lines[0], b"?\n", *lines[2:]]))
    code, _, err = harness("sync", "tiny")
    assert code == 1
    assert "damaged in line 2" in err and "`harness doctor tiny`" in err and "Traceback" not in err


def test_sync_says_what_was_sent_and_exits_4_where_the_server_is_down(
    study: StudyFolder, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = harness("sync", "tiny")
    assert code == 0 and "optuna.log holds all trials of the log of tiny." in out and "had all" in out
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    code, out, err = harness("sync", "tiny")
    assert code == 4
    assert len(err.splitlines()) == 1 and "MLflow at http://127.0.0.1:9 does not answer" in err


@pytest.mark.parametrize("command", ["log", "doctor", "sync"])
def test_an_unknown_study_is_refused_by_name(harness: Harness, command: str) -> None:
    for name in ("nothing", "../x"):
        code, _, err = harness(command, name)
        assert code == 2 and f"there is no study {name!r}" in err


def test_the_log_needs_no_torch(study: StudyFolder) -> None:
    """It is looked at again and again while a study runs, and must not take a core for seconds."""
    code = (
        "import sys; sys.argv = ['harness', 'log', 'tiny']\n"
        "from harness.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'mlflow', 'optuna'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=240)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize("target", ["log", "doctor", "sync"])
def test_make_hands_the_name_on_through_the_environment(tmp_path: Path, target: str) -> None:
    done = subprocess.run(
        ["make", "-s", target, "NAME=$(touch pwned)"],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 2
    assert "there is no study '$(touch pwned)': a study's name has" in done.stderr
    assert not (ROOT / "pwned").exists()
