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
from types import FrameType

from harness.study.executors.forkserver import TEMPORARY

PARENT_ENDED = getattr(signal, "SIGUSR2", None)
_PR_SET_PDEATHSIG = 1  # see prctl(2)
_PARENT = os.getppid()


def _end(signum: int, frame: FrameType | None) -> None:
    if os.getppid() == _PARENT:  # only the thread that started this server has ended
        return
    if folder := os.environ.get(TEMPORARY):
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


for _name in ("SIGINT", "SIGTERM", "SIGHUP"):
    if hasattr(signal, _name):
        signal.signal(getattr(signal, _name), signal.SIG_IGN)
if sys.platform.startswith("linux") and TEMPORARY in os.environ and PARENT_ENDED is not None:
    signal.signal(PARENT_ENDED, _end)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(PARENT_ENDED))
