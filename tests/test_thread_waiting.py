"""OpenMP threads of a command and of its workers sleep after a short spin, so that a busy machine is shared."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.thread_waiting import TURNS, wait_briefly

ROOT = Path(__file__).resolve().parent.parent
COMMAND = "from harness.__main__ import main; import sys; sys.argv[1:] = ['--help']\ntry: main()\nfinally: import torch"
WORKER = "from harness.study.executors import forkserver; forkserver.context(); import torch"


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings GNU's OpenMP on Linux only")
@pytest.mark.parametrize("script", [COMMAND, WORKER], ids=["command", "worker"])
def test_torch_s_own_openmp_reads_what_was_decided(script: str) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**environment, "OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
    assert f"GOMP_SPINCOUNT = '{TURNS}'" in done.stderr


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
        ({"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "7"}),
    ],
    ids=["policy", "turns"],
)
def test_what_the_user_chose_is_kept(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], kept: dict[str, str]
) -> None:
    monkeypatch.setattr(os, "environ", dict(given))
    wait_briefly()
    assert os.environ == kept
