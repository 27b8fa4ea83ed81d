"""Start worker processes from one fork server.

This file does not import torch, so that a command can start the server before its own slow imports.

On Linux, workers are forked from a server that has imported torch and the training code once. The first worker is ready
as soon as those imports are done, which run at the same time as the command's own imports. Every later worker (for a
second device, or in place of a dead worker) is ready in milliseconds. On macOS forking after such imports is not safe;
there every worker is spawned and does its own imports. No other process is forked: neither the coordinator with its
threads, nor a process that uses a GPU.
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
    """Return the multiprocessing context that starts workers."""
    _configure()
    return multiprocessing.get_context("forkserver" if _FORKS else "spawn")


def warm_up() -> None:
    """Start the server, which then does its imports in a process of its own; return at once."""
    _configure()
    if _FORKS:
        forkserver.ensure_running()


def _stop_server() -> None:
    """Kill the server when the command ends. Otherwise it needs a second to tear torch down."""
    server = forkserver._forkserver
    if server._forkserver_pid is not None:  # type: ignore[attr-defined]
        with contextlib.suppress(ProcessLookupError):
            os.kill(server._forkserver_pid, signal.SIGKILL)  # type: ignore[attr-defined]
        server._stop()  # type: ignore[attr-defined]


def _configure() -> None:
    """Set how OpenMP threads wait, and what the server imports."""
    # Threads that spin while they wait stall one another as soon as another process wants a core, and threads that
    # sleep at once are slow to wake. ResNet-18 on two cores trained 96 images a second when spinning, 87 when sleeping,
    # and 97 when spinning for 10,000 turns and then sleeping; beside two busy processes it trained 15, 37 and 48.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "10000")}
    if _FORKS:
        atexit.unregister(_stop_server)  # so that it is registered once, however often this is called
        atexit.register(_stop_server)
        forkserver.set_forkserver_preload(["harness.study.executors.ignore_signals", "harness.study.executors.worker"])
