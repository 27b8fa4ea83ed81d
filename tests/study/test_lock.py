"""Who works on a study, as others see it."""

from __future__ import annotations

import os
import subprocess

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
