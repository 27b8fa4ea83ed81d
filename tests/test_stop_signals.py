"""A command answers a stop signal at any time: during its imports, in its work, and while it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STOPS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

# Each script stands in for `harness.cli`, which is imported by the command's first lines.
SLOW_IMPORT = """
import sys, time
class Slow:
    def find_spec(self, name, path, target=None):
        if name == "harness.cli":
            print("ready", flush=True)
            time.sleep(600)
sys.meta_path.insert(0, Slow())
"""
WORK = """
import sys, time, types
cli = types.ModuleType("harness.cli")
def main():
    try:
        print("ready", flush=True)
        time.sleep(600)
    except Exception:
        print("swallowed by a library", flush=True)
    finally:
        print("in order", flush=True)
cli.main = main
sys.modules["harness.cli"] = cli
"""
SLOW_END = """
import atexit, sys, time, types
cli = types.ModuleType("harness.cli")
def end():
    print("ready", flush=True)
    time.sleep(600)
cli.main = lambda: atexit.register(end)
sys.modules["harness.cli"] = cli
"""


def stopped(script: str, signum: int, *before: str) -> tuple[int, str]:
    """Run the command's first lines after this script, send the signal at "ready", and return exit code and output."""
    command = subprocess.Popen(
        [*before, sys.executable, "-c", f"{script}\nfrom harness.__main__ import main\nmain()"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )
    assert command.stdout is not None
    assert command.stdout.readline() == "ready\n"
    command.send_signal(signum)
    if before and signum == signal.SIGHUP:
        command.send_signal(signal.SIGTERM)
    output, _ = command.communicate(timeout=60)
    return command.returncode, output


@pytest.mark.parametrize("signum", STOPS, ids=lambda s: s.name)
def test_a_signal_during_the_imports_ends_the_command_with_its_code_and_no_traceback(signum: int) -> None:
    assert stopped(SLOW_IMPORT, signum) == (128 + signum, "")


@pytest.mark.parametrize("signum", STOPS, ids=lambda s: s.name)
def test_a_signal_in_any_command_s_work_leaves_it_in_order(signum: int) -> None:
    assert stopped(WORK, signum) == (128 + signum, "in order\n")


@pytest.mark.parametrize("signum", STOPS, ids=lambda s: s.name)
def test_a_signal_while_the_command_ends_prints_no_traceback(signum: int) -> None:
    assert stopped(SLOW_END, signum) == (128 + signum, "")


def test_a_command_that_nohup_started_goes_on_after_its_terminal() -> None:
    ignoring = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"]  # nohup itself would redirect the output
    assert stopped(SLOW_IMPORT, signal.SIGHUP, *ignoring) == (128 + signal.SIGTERM, "")
