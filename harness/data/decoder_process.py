"""The processes that decode image files. They may die of a file: some decoders written in C crash on damaged ones.

One process imports the decoders and then forks a process for each lane, as often as its parent asks for one. It has no
threads and has not imported torch, so forking is safe. It reports how each of its children ended. All of them belong to
a session of their own, so that no signal of the terminal reaches them, and all end at once when the parent is gone.

A child reads one JSON object a line (an image) from its socket and answers with one line. Nothing that it sends is
executed by the parent, since a decoder that was led astray by a file could send anything.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.config.data import DataConfig
from harness.data import reading
from harness.data.decoding import decode, isolation
from harness.data.sources.listing import Frame
from harness.data.staged_rows import Target
from harness.errors import DataError

Examine = Callable[..., tuple[list[Any], list[int]]]
EXAMINE = f"{reading.examine.__module__}:{reading.examine.__name__}"
_PR_SET_PDEATHSIG = 1  # see prctl(2)


def main(control_number: int) -> None:
    """Fork a process for every socket that arrives, and report every process that ends, until the parent is gone."""
    control = socket.socket(fileno=control_number)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    woken, waker = socket.socketpair()
    waker.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda signum, frame: None)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash must not leave the memory of a process on the disk
    _silence()
    isolation.isolate()
    gc.freeze()  # so that a child's garbage collector does not copy the memory that all share
    lanes: dict[int, int] = {}  # process -> lane
    while True:
        ready, _, _ = select.select([control, woken], [], [])
        if woken in ready:
            woken.recv(4096)
            _report_ends(control, lanes)
        if control in ready:
            message, numbers, _, _ = socket.recv_fds(control, 4, 1)
            if not message:  # the parent is gone
                os.killpg(0, signal.SIGKILL)
            lane = socket.socket(fileno=numbers[0])
            process = os.fork()
            if not process:
                signal.set_wakeup_fd(-1)
                for unneeded in (control, woken, waker):
                    unneeded.close()
                _child(lane)
            lane.close()
            lanes[process] = int.from_bytes(message, "big")
            _tell(control, {"lane": lanes[process], "process": process})


def _silence() -> None:
    """From here on, nothing that a decoder prints reaches the user's terminal."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (1, 2):
        os.dup2(nowhere, number)
    os.close(nowhere)


def _report_ends(control: socket.socket, lanes: dict[int, int]) -> None:
    while lanes:
        process, status = os.waitpid(-1, os.WNOHANG)
        if not process:
            return
        _tell(control, {"lane": lanes.pop(process), "ended": os.waitstatus_to_exitcode(status)})


def _tell(stream: socket.socket, message: dict[str, Any]) -> None:
    stream.sendall(json.dumps(message, separators=(",", ":")).encode() + b"\n")


def _child(lane: socket.socket) -> None:
    """Answer until the socket closes, then end the process without returning."""
    try:
        for number in (signal.SIGCHLD, signal.SIGPROF, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        if sys.platform.startswith("linux"):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        with contextlib.suppress(ConnectionError), decode.quiet():
            _serve(lane)
    except BaseException:
        with contextlib.suppress(OSError):
            _tell(lane, {"fault": traceback.format_exc()})
        os._exit(1)
    os._exit(0)


def _serve(lane: socket.socket) -> None:
    lines = lane.makefile("rb")
    setup = json.loads(lines.readline())
    module, _, name = setup["examine"].partition(":")
    examine: Examine = getattr(importlib.import_module(module), name)
    config = DataConfig.model_validate(setup["config"])
    targets = [Target.from_json(one) for one in setup["targets"]]
    for line in lines:
        request = json.loads(line)
        _limit(*setup["limits"])
        answer = _answer(examine, request, config, targets)
        _limit(0, 0)
        _tell(lane, {"row": request["row"], **answer})


def _limit(processor_seconds: float, seconds: float) -> None:
    """Let the kernel end this process after so many seconds; 0 means never. A decoder in C would not see a handler."""
    signal.setitimer(signal.ITIMER_PROF, processor_seconds)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _answer(examine: Examine, request: dict[str, Any], config: DataConfig, targets: list[Target]) -> dict[str, Any]:
    try:
        path, frame = Path(request["path"]), request["frame"]
        source = path if frame is None else Frame(path, frame)
        values, checks = examine(source, config, targets, request["slot"])
    except DataError as error:
        return {"bad": str(error)}
    except MemoryError:
        return {"memory": True}
    except OSError as error:
        return {"errno": error.errno, "file": error.filename}
    return {"values": values, "checks": checks}
