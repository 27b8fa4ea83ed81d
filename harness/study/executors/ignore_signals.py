"""Make the fork server ignore the signals that stop a study, and end with the command. It is the first import there.

Only the coordinator may react to a signal to the process group. If the server ended first, the coordinator could not
start a worker, and would end with that error instead of the signal's exit code.

A command that is killed cannot stop the server, and the server itself looks only after its imports, which take seconds,
whether the command is still there. So Linux is asked to send a signal when the command ends.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys

from harness.study.executors.forkserver import COMMAND

_PR_SET_PDEATHSIG = 1  # see prctl(2)


def _end_without(command: int, folder: str) -> None:
    """End this server and remove the folder of its socket, if its command has ended."""
    if os.getppid() != command:
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)


for _name in ("SIGINT", "SIGTERM", "SIGHUP"):
    if hasattr(signal, _name):
        signal.signal(getattr(signal, _name), signal.SIG_IGN)
if sys.platform.startswith("linux") and COMMAND in os.environ:
    _pid, _folder = os.environ[COMMAND].split(" ", 1)
    signal.signal(signal.SIGUSR2, lambda signum, frame: _end_without(int(_pid), _folder))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGUSR2))
    _end_without(int(_pid), _folder)  # it may have ended before
