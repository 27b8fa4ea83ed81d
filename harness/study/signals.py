"""Handle SIGINT, SIGTERM and SIGHUP: the first signal stops the study, the second ends the process at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from harness.errors import HarnessError, Interrupted

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class StopRequest:
    """The signal that arrived, if any. While `raising`, it raises at once; otherwise when `check` is called."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self.raising = True

    def check(self) -> None:
        """Raise Interrupted if a signal arrived."""
        if self.signum is not None:
            raise self.interruption(self.signum)

    @staticmethod
    def interruption(signum: int) -> Interrupted:
        """Return the error that ends a study after this signal."""
        return Interrupted(f"stopped by {signal.Signals(signum).name}", signum)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None:
            os._exit(128 + signum)
        self.signum = signum
        if self.raising:
            self.check()


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Handle the three signals inside the block, and restore the earlier handlers after it.

    A library in whose code `Interrupted` is raised may end with an error of its own. After a signal such an error is
    taken for the signal; errors of the harness stay what they are.
    """
    request = StopRequest()
    before = {}
    for name in _NAMES:
        number = getattr(signal, name, None)
        if number is None or (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):
            continue  # started with nohup: the study is to go on after the terminal is closed
        before[number] = signal.signal(number, request._handle)
    try:
        yield request
    except Exception as error:
        if request.signum is None or isinstance(error, HarnessError):
            raise
        raise request.interruption(request.signum) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
