"""What a study survives, run as a user runs it: full disks, damaged files, sleep, company."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from tortured import SMALL, Undisturbed, finish, lines, said, until

from harness.benchmarks.fault_injection.checks import broken_promises
from harness.benchmarks.fault_injection.sandbox import NAME, Sandbox, numbers, prepare

NO_ROOM = {  # bytes that no file may exceed, and who trains
    "for the images": (150_000, "processes"),
    "for a model": (1_500_000, "processes"),
    "for a model, inline": (1_500_000, "inline"),
}


@pytest.mark.parametrize("cases", [["for a model"], pytest.param([*NO_ROOM], marks=pytest.mark.slow)])
def test_a_full_disk_ends_with_path_and_free_bytes_and_nothing_is_lost(
    tmp_path: Path, whole: Undisturbed, cases: list[str]
) -> None:
    """No file may grow beyond a limit: what a full disk looks like to whoever writes. Then there is room again."""
    place = prepare(tmp_path, **SMALL)
    file = place.root / "studies" / f"{NAME}.yaml"
    study = yaml.safe_load(file.read_text())
    before: dict[str, object] = {}
    for limit, executor in (NO_ROOM[case] for case in cases):
        file.write_text(yaml.safe_dump(study | {"executor": executor}))
        code = (
            f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
            f"sys.argv = ['harness', 'study', '{NAME}']; runpy.run_module('harness', run_name='__main__')"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=place.root,
            env=place.environment,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 4, done.stderr
        assert "bytes free" in done.stderr
        assert str(place.home) in done.stderr
        assert "Traceback" not in done.stderr
        after = numbers(place.events()) if place.log.exists() else {}
        assert {key: after[key] for key in before} == before
        before = after
    file.write_text(yaml.safe_dump(study))
    finish(place)
    assert broken_promises(place, whole.numbers) == []


def test_every_file_but_the_log_may_be_cut_off_anywhere(tmp_path: Path, whole: Undisturbed) -> None:
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
    assert numbers(place.events()) == whole.numbers


@pytest.mark.slow
def test_a_machine_that_slept_goes_on(tmp_path: Path, whole: Undisturbed) -> None:
    """To its end; that it goes on at all is seen where a second command meets a stopped one."""
    place = prepare(tmp_path, **SMALL)
    process = place.start()
    until(place, 9, process)
    os.killpg(process.pid, signal.SIGSTOP)
    time.sleep(5)
    os.killpg(process.pid, signal.SIGCONT)
    assert process.wait(240) == 0, said(place)
    assert broken_promises(place, whole.numbers) == []


def test_two_studies_at_once_on_an_empty_home_share_everything(tmp_path: Path, whole: Undisturbed) -> None:
    at_once(tmp_path, whole, [NAME, "second"])


@pytest.mark.slow
def test_three_studies_at_once_on_an_empty_home_share_everything(tmp_path: Path, whole: Undisturbed) -> None:
    at_once(tmp_path, whole, [NAME, "second", "third"])


def at_once(root: Path, whole: Undisturbed, names: list[str]) -> None:
    """Copies of the study under these names, started together."""
    place = prepare(root, **SMALL)
    text = (place.root / "studies" / f"{NAME}.yaml").read_text()
    for name in names[1:]:
        (place.root / "studies" / f"{name}.yaml").write_text(text)
    running = [place.start("study", name) for name in names]
    assert [process.wait(400) for process in running] == [0] * len(names), said(place)
    for name in names:
        assert numbers(Sandbox(root, name).events()) == whole.numbers


def test_the_same_study_twice_is_refused_by_name_and_a_killed_owner_frees_it(
    tmp_path: Path, whole: Undisturbed
) -> None:
    place = prepare(tmp_path, **SMALL)
    owner = place.start()
    until(place, 9, owner)
    os.kill(owner.pid, signal.SIGSTOP)  # or it might be done before the second one has looked
    second = place.start()
    assert second.wait(120) == 75
    assert f"{NAME} is being run by process {owner.pid}" in said(place)
    written = lines(place)
    os.kill(owner.pid, signal.SIGCONT)
    until(place, written + 2, owner)  # as a machine that slept, it goes on
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    finish(place)
    assert broken_promises(place, whole.numbers) == []
