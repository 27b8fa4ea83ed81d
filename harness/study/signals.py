"""Handle SIGINT, SIGTERM and SIGHUP: the first signal stops the study, the second ends the process at once.

After the first signal the study has `END_SECONDS` to write its report and to tell the stores. On a busy machine that
may not be enough; then a thread ends the process as a second signal would.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from harness.errors import HarnessError, Interrupted
from harness.stop_signals import stop_signals

END_SECONDS = 7.0  # after this and the end of the interpreter, a signal was answered within 10 s


class StopRequest:
    """The signal that arrived, if any. While `raising`, it raises at once; otherwise when `check` is called."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self.raising = True
        self.last_words = ""  # told on stderr if the end takes too long
        self._before_end: list[Callable[[], object]] = []

    def check(self) -> None:
        """Raise Interrupted if a signal arrived."""
        if self.signum is not None:
            raise self.interruption(self.signum)

    @staticmethod
    def interruption(signum: int) -> Interrupted:
        """Return the error that ends a study after this signal."""
        return Interrupted(f"stopped by {signal.Signals(signum).name}", signum)

    def before_end_at_once(self, do: Callable[[], object]) -> None:
        """Call `do` before the process ends at once, without any `finally`. It must be short and must not wait."""
        self._before_end.append(do)

    def end_at_once(self, signum: int) -> None:
        """End the process with this signal's exit code."""
        for do in reversed(self._before_end):
            with contextlib.suppress(Exception):
                do()
        os._exit(128 + signum)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None:
            self.end_at_once(signum)
        self.signum = signum
        if self.raising:
            self.check()

    def _watch(self, arrivals: int, numbers: frozenset[int]) -> None:
        """End the process if the block of `listening` is not left in time after a signal.

        Args:
            arrivals: file descriptor from which the number of each signal is read, when it arrives. The handler itself
                may have to wait for the main thread.
            numbers: the signals that stop the study.
        """
        first: int | None = None
        while first is None:
            arrived = os.read(arrivals, 64)
            if not arrived:
                return
            first = next((number for number in arrived if number in numbers), None)
        end = time.monotonic() + END_SECONDS
        while (left := end - time.monotonic()) > 0:
            if select.select([arrivals], [], [], left)[0] and not os.read(arrivals, 64):
                return
        if self.last_words and select.select([], [2], [], 0)[1]:  # stderr may be a pipe that nobody reads
            with contextlib.suppress(OSError):
                os.write(2, self.last_words.encode("ascii", "replace"))
        self.end_at_once(first)


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Handle the three signals inside the block, and restore the earlier handlers after it.

    Outside the main thread, where Python allows no handlers, the signals are left to the caller.

    A library in whose code `Interrupted` is raised may end with an error of its own. After a signal such an error is
    taken for the signal; errors of the harness stay what they are.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    numbers = stop_signals()
    with _deadline(request, numbers):
        before = {number: signal.signal(number, request._handle) for number in numbers}
        try:
            yield request
        except Exception as error:
            if request.signum is None or isinstance(error, HarnessError):
                raise
            raise request.interruption(request.signum) from error
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _deadline(request: StopRequest, numbers: list[signal.Signals]) -> Iterator[None]:
    """Run the thread that ends the process if it does not end by itself in time after a signal."""
    arrivals, written = os.pipe()
    os.set_blocking(written, False)
    before = signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    thread = threading.Thread(
        target=request._watch, args=(arrivals, frozenset(map(int, numbers))), name="deadline", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(written)
        thread.join()
        os.close(arrivals)
