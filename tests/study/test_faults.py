"""What a study survives, run as a user runs it: full disks, damaged files, sleep, company."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from tortured import SMALL, Undisturbed, finish, said, until

from harness.benchmarks.fault_injection.checks import broken_promises
from harness.benchmarks.fault_injection.sandbox import NAME, Sandbox, numbers, prepare

NO_ROOM = {  # bytes that no file may exceed, and the executor
    "for the images": (150_000, "processes"),
    "for a model": (1_500_000, "processes"),
    "for a model, inline": (1_500_000, "inline"),
}


def test_company_a_kill_damaged_files_and_a_full_disk_change_no_number(tmp_path: Path, whole: Undisturbed) -> None:
    """Two studies start at once on an empty home. One is killed, its files are cut off, and the disk is full."""
    place = prepare(tmp_path, **SMALL)
    file = place.root / "studies" / f"{NAME}.yaml"
    second = Sandbox(place.root, "second")
    shutil.copyfile(file, file.with_name("second.yaml"))
    killed, other = place.start(), second.start()
    until(place, 12, killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert other.wait(400) == 0, said(place)
    assert numbers(second.events()) == whole.numbers

    cut_off_files(place)
    before = numbers(place.events())
    without_room(place, NO_ROOM["for a model"][0])
    after = numbers(place.events())
    assert {key: after[key] for key in before} == before
    finish(place)
    assert numbers(place.events()) == whole.numbers


def cut_off_files(place: Sandbox) -> None:
    """Shorten every file that the study made, except its log, at a random place."""
    rng, cut = np.random.default_rng(3), 0
    for path in sorted(place.home.rglob("*")):
        if path.is_file() and path != place.log and path.stat().st_size:
            path.chmod(0o644)
            os.truncate(path, int(rng.integers(0, path.stat().st_size)))
            cut += 1
    assert cut > 10


def without_room(place: Sandbox, limit: int) -> None:
    """Run the study where no file may grow beyond `limit` bytes, which looks like a full disk to whoever writes."""
    code = (
        f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
        f"sys.argv = ['harness', 'study', '{NAME}']; runpy.run_module('harness', run_name='__main__')"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=place.root, env=place.environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 4, done.stderr
    assert "bytes free" in done.stderr
    assert str(place.home) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_full_disk_ends_with_path_and_free_bytes_and_nothing_is_lost(tmp_path: Path, whole: Undisturbed) -> None:
    """In each place where room is missing; then there is room again."""
    place = prepare(tmp_path, **SMALL)
    file = place.root / "studies" / f"{NAME}.yaml"
    study = yaml.safe_load(file.read_text())
    before: dict[str, object] = {}
    for limit, executor in NO_ROOM.values():
        file.write_text(yaml.safe_dump(study | {"executor": executor}))
        without_room(place, limit)
        after = numbers(place.events()) if place.log.exists() else {}
        assert {key: after[key] for key in before} == before
        before = after
    file.write_text(yaml.safe_dump(study))
    finish(place)
    assert broken_promises(place, whole.numbers) == []


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


@pytest.mark.slow
def test_three_studies_at_once_on_an_empty_home_share_everything(tmp_path: Path, whole: Undisturbed) -> None:
    place = prepare(tmp_path, **SMALL)
    text = (place.root / "studies" / f"{NAME}.yaml").read_text()
    names = [NAME, "second", "third"]
    for name in names[1:]:
        (place.root / "studies" / f"{name}.yaml").write_text(text)
    running = [place.start("study", name) for name in names]
    assert [process.wait(400) for process in running] == [0] * len(names), said(place)
    for name in names:
        assert numbers(Sandbox(tmp_path, name).events()) == whole.numbers
