"""Which signals stop a command, and how a command ends on them from its first line on.

This file imports nothing slow, because a command answers signals while its own imports run, which take seconds.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


def stop_signals() -> list[signal.Signals]:
    """Return the signals that stop a command: not SIGHUP if nohup started it, so that it outlives its terminal."""
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    return [n for n in numbers if not (n.name == "SIGHUP" and signal.getsignal(n) is signal.SIG_IGN)]


def end_at_once() -> None:
    """From now on, a stop signal ends the process at once, without a word, with the exit code 128 + its number.

    This is for the time in which nothing has begun that must be put in order, and Python's own answer to SIGINT would
    be the traceback of an import.
    """
    _answer(_end_at_once)


def leave_in_order() -> None:
    """From now on, a stop signal raises SystemExit, so that every `finally` and all `atexit` functions run.

    SystemExit, because libraries catch Exception, and the command line's library turns KeyboardInterrupt into the exit
    code of SIGINT whatever the signal was.
    """
    _answer(_leave)


def _answer(handler: Callable[[int, FrameType | None], None]) -> None:
    for number in stop_signals():
        signal.signal(number, handler)


def _end_at_once(signum: int, frame: FrameType | None) -> None:
    os._exit(128 + signum)


def _leave(signum: int, frame: FrameType | None) -> None:
    sys.exit(128 + signum)
