"""With weights and data at hand a study needs no network and asks for none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_study import runs

ROOT = Path(__file__).resolve().parent.parent

# Loaded by every Python below the test, workers too: notes each attempt to reach another machine.
SITE = """
import os, sys

def note(event, arguments):
    if event == "socket.getaddrinfo" or event == "socket.gethostbyname":
        found = arguments[0]
    elif event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
        found = arguments[1]
    else:
        return
    with open(os.environ["NOTED"], "a") as stream:
        stream.write(f"{event} {found}\\n")

sys.addaudithook(note)
"""
RUN = """
import sys
from pathlib import Path
from small_study import World, draw_images

root = Path(sys.argv[1])
world = World(root, draw_images(root / "cells"))
world.write(weights="bundled", trials=1, executor="processes", strategies=["fine_tuning"])
print(world.run().report)
"""


def no_network() -> list[str]:
    """What begins a command that has no network at all; skips where this user may not do that."""
    words = ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not here: a network cannot be taken away")
    tried = subprocess.run([*words, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"a network namespace is not allowed here: {tried.stderr.strip()}")
    return words


def test_a_study_with_weights_and_data_at_hand_needs_no_network_and_asks_for_none(tmp_path: Path) -> None:
    words = no_network()
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    noted = tmp_path / "noted"
    path = os.pathsep.join([str(tmp_path / "site"), str(ROOT), str(ROOT / "tests")])
    quiet = ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "CI", "GITHUB_ACTIONS", "PYTEST_CURRENT_TEST")
    made = {name: value for name, value in os.environ.items() if name not in quiet}
    made |= {"PYTHONPATH": path, "NOTED": str(noted)}
    code = "import socket; socket.socket().connect_ex(('127.0.0.1', 9))"
    subprocess.run([*words, sys.executable, "-c", code], env=made, check=True, timeout=60)
    assert noted.read_text() == "socket.connect ('127.0.0.1', 9)\n", "an attempt is seen"
    noted.write_text("")
    done = subprocess.run(
        [*words, sys.executable, "-c", RUN, str(tmp_path)], env=made, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    assert "index.html" in done.stdout
    assert noted.read_text() == ""
    assert len(runs("tiny", "search")) == 1
    assert len(runs("tiny", "confirmation")) >= 2
    assert (tmp_path / "reports" / "tiny" / "index.html").exists()
