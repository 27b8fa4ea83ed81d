"""What a study survives, run as a user runs it: full disks, damaged files, sleep, signals, kills, company."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from harness.bench.torture.blows import Tally, torture
from harness.bench.torture.checks import broken
from harness.bench.torture.place import NAME, Place, numbers, prepare, undisturbed, workers

SMALL = {"trials": 2, "controlled": {"changes": 0}, "data_sizes": [], "shifts": []}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The numbers of the small study when nothing happens to it."""
    return undisturbed(prepare(tmp_path_factory.mktemp("whole"), **SMALL))


def said(place: Place) -> str:
    return (place.root / "said.txt").read_text()


def finish(place: Place) -> None:
    process = place.start()
    assert process.wait(240) == 0, said(place)


def until(place: Place, lines: int, process: subprocess.Popen[bytes]) -> None:
    """Wait for so many lines of the log."""
    end = time.monotonic() + 120
    while not place.log.exists() or place.log.read_bytes().count(b"\n") < lines:
        assert process.poll() is None, said(place)
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("limit", "executor"), [(150_000, "processes"), (1_500_000, "processes"), (1_500_000, "inline")],
    ids=["no room for the images", "no room for a model", "no room for a model, inline"],
)  # fmt: skip
def test_a_full_disk_ends_with_path_and_free_bytes_and_nothing_is_lost(
    tmp_path: Path, whole: dict[str, object], limit: int, executor: str
) -> None:
    """No file may grow beyond the limit: what a full disk looks like to whoever writes."""
    place = prepare(tmp_path, **SMALL, executor=executor)
    code = (
        f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
        f"sys.argv = ['harness', 'study', '{NAME}']; runpy.run_module('harness', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=place.root, env=place.environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 4, done.stderr
    assert "bytes free" in done.stderr
    assert str(place.home) in done.stderr
    assert "Traceback" not in done.stderr
    before = numbers(place.events())
    finish(place)
    after = numbers(place.events())
    assert {key: after[key] for key in before} == before
    assert broken(place, whole) == []


def test_every_file_but_the_log_may_be_cut_off_anywhere(tmp_path: Path, whole: dict[str, object]) -> None:
    """Half a study, then every file that it made is shortened at a random place; the rest comes out the same."""
    place = prepare(tmp_path, **SMALL)
    process = place.start()
    until(place, 12, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    rng, cut = np.random.default_rng(3), 0
    for path in sorted(place.home.rglob("*")):
        if path.is_file() and path != place.log and path.stat().st_size:
            path.chmod(0o644)
            os.truncate(path, int(rng.integers(0, path.stat().st_size)))
            cut += 1
    assert cut > 10
    finish(place)
    assert numbers(place.events()) == whole


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("group", [False, True], ids=["the process", "its group"])
def test_a_signal_ends_the_study_soon_with_its_code_and_the_command_that_resumes(
    tmp_path: Path, whole: dict[str, object], sign: signal.Signals, group: bool
) -> None:
    place = prepare(tmp_path, **SMALL)
    process = place.start()
    until(place, 9, process)
    (os.killpg if group else os.kill)(process.pid, sign)
    assert process.wait(120) == 128 + sign  # how long that takes on a machine of its own, `make torture` measures
    assert f"Continue with: harness study {NAME}" in said(place)
    assert (place.root / "reports" / NAME / "index.html").exists()
    assert [e.data["state"] for e in place.events() if e.kind == "session_ended"] == ["interrupted"]
    assert place.processes() == []
    finish(place)
    assert broken(place, whole) == []


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    place = prepare(tmp_path, **SMALL)
    process = place.start()
    until(place, 9, process)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    assert not [e for e in place.events() if e.kind == "session_ended"]  # nothing was tidied up


def test_a_machine_that_slept_goes_on(tmp_path: Path, whole: dict[str, object]) -> None:
    place = prepare(tmp_path, **SMALL)
    process = place.start()
    until(place, 9, process)
    os.killpg(process.pid, signal.SIGSTOP)
    time.sleep(5)
    os.killpg(process.pid, signal.SIGCONT)
    assert process.wait(240) == 0, said(place)
    assert broken(place, whole) == []


def test_three_studies_at_once_on_an_empty_home_share_everything(tmp_path: Path, whole: dict[str, object]) -> None:
    place = prepare(tmp_path, **SMALL)
    text = (place.root / "studies" / f"{NAME}.yaml").read_text()
    for name in ("second", "third"):
        (place.root / "studies" / f"{name}.yaml").write_text(text)
    running = [place.start("study", name) for name in (NAME, "second", "third")]
    assert [process.wait(400) for process in running] == [0, 0, 0], said(place)
    for name in ("second", "third"):
        assert numbers(Place(tmp_path, name).events()) == whole
    assert numbers(place.events()) == whole


def test_the_same_study_twice_is_refused_by_name_and_a_killed_owner_frees_it(
    tmp_path: Path, whole: dict[str, object]
) -> None:
    place = prepare(tmp_path, **SMALL)
    owner = place.start()
    until(place, 9, owner)
    second = place.start()
    assert second.wait(120) == 75
    assert f"{NAME} is being run by process {owner.pid}" in said(place)
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    finish(place)
    assert broken(place, whole) == []


def test_kills_at_any_moment_lose_nothing(tmp_path: Path, whole: dict[str, object]) -> None:
    """The heart; `make torture` deals fifty kills and more."""
    tally = Tally()
    torture(prepare(tmp_path, **SMALL), seed=1, wanted=whole, tally=tally, most=5)
    assert tally.faults == []
    assert sum(tally.blows.values()) == 5
    assert tally.trials == len([key for key in whole if "/" in key])


def test_what_torture_looks_for_is_found(tmp_path: Path, whole: dict[str, object]) -> None:
    """The control: a study that lost a trial, or holds another number, does not pass."""
    place = prepare(tmp_path, **SMALL)
    finish(place)
    assert broken(place, whole) == []
    trial = next(key for key in whole if key.startswith("fine_tuning/"))
    assert any(trial in fault for fault in broken(place, {**whole, trial: ["complete", {}, 0.5, []]}))
    assert any("not in an undisturbed" in fault for fault in broken(place, {k: whole[k] for k in whole if k != trial}))


def test_workers_are_told_from_other_children(tmp_path: Path) -> None:
    place = prepare(tmp_path, **SMALL)
    process = place.start()
    until(place, 9, process)
    assert len(list(workers(process))) == 1
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
