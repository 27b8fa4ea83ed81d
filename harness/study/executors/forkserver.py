"""How worker processes come to be; needs no torch, so that a command can start it before it imports anything heavy.

Where the system allows, workers are forked from a server that has imported torch and the training code once: the
first worker is at hand as soon as those imports are done, beside the command's own, and every other one (a second
device's, one that replaces a dead one) in milliseconds. On macOS forking after such imports is not safe; there every
worker is spawned and imports for itself. Nothing else is forked: not the coordinator with its threads, nor anything
that holds a GPU.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
from multiprocessing import forkserver
from multiprocessing.context import BaseContext

_FORKS = sys.platform.startswith("linux")


def context() -> BaseContext:
    """What makes workers."""
    _settle()
    return multiprocessing.get_context("forkserver" if _FORKS else "spawn")


def warm_up() -> None:
    """Let the server start importing now, in a process of its own; returns at once."""
    _settle()
    if _FORKS:
        forkserver.ensure_running()


def _end() -> None:
    """Take the server along when the command ends. Left to itself it is busy for a second with taking torch apart."""
    server = forkserver._forkserver
    if server._forkserver_pid is not None:  # type: ignore[attr-defined]
        with contextlib.suppress(ProcessLookupError):
            os.kill(server._forkserver_pid, signal.SIGKILL)  # type: ignore[attr-defined]
        server._stop()  # type: ignore[attr-defined]


def _settle() -> None:
    # Threads that spin while they wait stall one another as soon as anything else wants a core, and threads that sleep
    # at once are slow to wake: ResNet-18 on two cores trained 96 images a second spinning, 87 sleeping, 97 spinning
    # for 10,000 turns and then sleeping; beside two busy processes 15, 37 and 48.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "10000")}
    if _FORKS:
        atexit.unregister(_end)  # once, however often this is called
        atexit.register(_end)
        forkserver.set_forkserver_preload(["harness.study.executors.ignore_signals", "harness.study.executors.worker"])
