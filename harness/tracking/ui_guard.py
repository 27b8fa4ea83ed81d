"""Run a command as a child process, and kill its process group when the process that started this one is gone.

`harness ui` starts MLflow's server in this way: if `harness ui` is killed, it cannot stop the server itself. The
standard input is a pipe of the starting process, which the system closes however that process ends. The file is run by
its path and imports nothing of the harness.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def main(command: list[str]) -> int:
    """Run the command and return its exit code. This process must be the first of its process group."""
    # The signal goes to the whole group. This process waits until the command has ended.
    signal.signal(signal.SIGTERM, lambda signum, frame: None)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    code = child.wait()
    return code if code >= 0 else 128 - code


def _end_with_parent() -> None:
    while os.read(0, 64):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
