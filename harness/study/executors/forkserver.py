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
import shutil
import signal
import sys
from multiprocessing import forkserver, util
from multiprocessing.context import BaseContext

from harness.thread_waiting import wait_briefly

_FORKS = sys.platform.startswith("linux")
COMMAND = "HARNESS_COMMAND_OF_WORKERS"  # tells the server its command and its socket's folder; see `ignore_signals`


def context() -> BaseContext:
    """Return the multiprocessing context that starts workers."""
    _configure()
    return multiprocessing.get_context("forkserver" if _FORKS else "spawn")


def warm_up() -> None:
    """Start the server if it does not run; it does its imports in a process of its own. Return at once."""
    _configure()
    if _FORKS:
        os.environ[COMMAND] = f"{os.getpid()} {util.get_temp_dir()}"
        try:
            forkserver.ensure_running()
        finally:
            del os.environ[COMMAND]


def restart() -> None:
    """Start the server again, after it died or does not answer."""
    _stop_server()
    warm_up()


def remove_traces() -> None:
    """Kill the server and remove the folder of its socket, before the process ends without its `atexit` functions."""
    if _FORKS and _server_pid() is not None:
        _kill_server()
        shutil.rmtree(util.get_temp_dir(), ignore_errors=True)


def _server_pid() -> int | None:
    pid: int | None = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    return pid


def _kill_server() -> None:
    pid = _server_pid()
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _stop_server() -> None:
    """Kill the server when the command ends. Otherwise it needs a second to tear torch down."""
    if _server_pid() is not None:
        _kill_server()
        with contextlib.suppress(FileNotFoundError):  # of the server's socket
            forkserver._forkserver._stop()  # type: ignore[attr-defined]


def _configure() -> None:
    """Set how the workers' threads wait, and what the server imports."""
    wait_briefly()
    if _FORKS:
        atexit.unregister(_stop_server)  # so that it is registered once, however often this is called
        atexit.register(_stop_server)
        forkserver.set_forkserver_preload(["harness.study.executors.ignore_signals", "harness.study.executors.worker"])
