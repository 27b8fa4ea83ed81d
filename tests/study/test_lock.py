"""Who works on a study, as others see it."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from harness.errors import DiskFullError, StudyHeldError
from harness.results.paths import StudyFolder
from harness.study.lock import held, is_held, owner


def test_the_owner_is_the_process_that_holds_the_study() -> None:
    folder = StudyFolder("tiny")
    with held(folder):
        assert is_held(folder)
        assert owner(folder) == os.getpid()
    assert not is_held(folder)
    assert owner(folder) is None


def test_a_process_that_is_gone_is_no_owner() -> None:
    folder = StudyFolder("tiny")
    folder.lock.parent.mkdir(parents=True)
    gone = subprocess.Popen(["true"])
    gone.wait()
    folder.owner.write_text(str(gone.pid))
    assert owner(folder) is None


@pytest.mark.parametrize("error", [KeyboardInterrupt, StudyHeldError("held"), SystemExit(3), OSError(errno.ENOSPC, "")])
def test_the_note_is_removed_however_the_block_ends(error: BaseException) -> None:
    folder = StudyFolder("tiny")
    with pytest.raises(BaseException), held(folder):  # noqa: B017 - any end
        assert owner(folder) == os.getpid()
        raise error
    assert not folder.owner.exists()


def test_the_note_of_a_killed_process_names_nobody_although_its_number_is_in_use_again() -> None:
    """The process with this number is another one, which started at another time."""
    folder = StudyFolder("tiny")
    with held(folder):
        noted = folder.owner.read_text()
    number, start = noted.split()
    assert int(number) == os.getpid()
    folder.owner.write_text(f"{number} {float(start) - 3600}")
    assert owner(folder) is None
    with held(folder):  # another command finds the note, and removes its own one at the end
        assert owner(folder) == os.getpid()
    assert not folder.owner.exists()


@pytest.mark.parametrize("note", ["", "nobody", "-1", f"{2**70} 1", "\0", "OWN soon"])
def test_a_note_that_is_none_names_nobody(note: str) -> None:
    folder = StudyFolder("tiny")
    folder.lock.parent.mkdir(parents=True)
    folder.owner.write_text(note.replace("OWN", str(os.getpid())))
    assert owner(folder) is None


def test_a_study_starts_although_another_command_looks_at_its_lock() -> None:
    """`harness list` takes the lock for a moment to see whether it is free. That is no other run of the study."""
    folder = StudyFolder("tiny")
    taken = threading.Event()

    def look() -> None:
        with held(folder, as_owner=False):
            taken.set()
            time.sleep(0.3)

    looking = threading.Thread(target=look)
    looking.start()
    taken.wait()
    with held(folder):
        assert owner(folder) == os.getpid()
    looking.join()


def test_a_note_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *args: object, **options: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = StudyFolder("tiny")
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(DiskFullError, match=folder.owner.name), held(folder):
        pass
    monkeypatch.undo()
