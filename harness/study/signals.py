"""Handle SIGINT, SIGTERM and SIGHUP: the first signal stops the study, the second ends the process at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from harness.errors import Interrupted

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class StopRequest:
    """The signal that arrived, if any. While `raising`, it raises at once; otherwise when `check` is called."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self.raising = True

    def check(self) -> None:
        """Raise Interrupted if a signal arrived."""
        if self.signum is not None:
            raise Interrupted(f"stopped by {signal.Signals(self.signum).name}", self.signum)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None:
            os._exit(128 + signum)
        self.signum = signum
        if self.raising:
            self.check()


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Handle the three signals inside the block, and restore the earlier handlers after it."""
    request = StopRequest()
    before = {}
    for name in _NAMES:
        if hasattr(signal, name):
            number = getattr(signal, name)
            before[number] = signal.signal(number, request._handle)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
