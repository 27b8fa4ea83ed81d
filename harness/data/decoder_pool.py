"""Decode image files in processes that may die, one for each core. See `harness.data.decoder_process` for their side.

A file whose decoder crashes or does not come to an end is named like an unreadable one; its process is replaced, and
everything else goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from harness.config.data import DataConfig
from harness.data.sources.listing import Frame
from harness.data.staged_rows import Target
from harness.errors import ResourceError

EXAMINE = "harness.data.reading:examine"  # what a process does with an image; see there
PROCESSOR_SECONDS = 120.0  # of one image, after which its decoder counts as hanging; other work does not use them up
SECONDS = 600.0  # of one image, for a decoder that waits for ever instead
_SERVER_STARTS = 3
_AHEAD = 16  # images that one process has been sent before it answered
_AHEAD_BYTES = 4096  # and their size, so that sending never waits: the smallest buffer of a socket is 8 KiB
# -P keeps the current folder out of the path of modules until the path of this process replaces it.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from harness.data.decoder_process import main; main(int(sys.argv[2]))"
)


@dataclass(frozen=True)
class Answer:
    """What was found in one image, as `harness.data.reading.examine` returns it, or the reason why it is unreadable."""

    values: list[Any]
    checks: list[int]
    bad: str | None = None


@dataclass
class _Lane:
    """One process that decodes, and the images that it has been sent."""

    number: int
    socket: socket.socket
    sent: deque[tuple[int, int]] = field(default_factory=deque)  # (row, bytes of its request), oldest first
    buffer: bytearray = field(default_factory=bytearray)
    closed: bool = False  # the process has ended or closed its socket
    ended: int | None = None  # its exit code, or minus the number of the signal that ended it


class DecoderPool:
    """Decoding processes. Use it as a context manager: at its end, all of them are killed at once."""

    def __init__(self, config: DataConfig, targets: Iterable[Target], lanes: int) -> None:
        self._setup = {
            "examine": EXAMINE,
            "config": config.model_dump(mode="json"),
            "targets": [target.to_json() for target in targets],
            "limits": [PROCESSOR_SECONDS, SECONDS],
        }
        self._count = lanes
        self._lanes: dict[int, _Lane] = {}
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._heard = bytearray()
        self._starts = 0
        self._selector = selectors.DefaultSelector()
        self._again: set[int] = set()  # rows whose process was killed from outside once

    def __enter__(self) -> DecoderPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._selector.close()

    def run(
        self, slots: Mapping[int, int], path_of: Callable[[int], Path | Frame], receive: Callable[[int, Answer], None]
    ) -> None:
        """Read the file of every row; call `receive` from this thread, in the order in which they are done.

        Args:
            slots: for each row, the slot that its resized pixels are written to.

        Raises:
            ResourceError: an image does not fit into the memory, or no process can be started.
            OSError: a resized image cannot be written.
        """
        waiting = deque(slots)
        left = len(waiting)

        def answered(lane: _Lane, message: dict[str, Any]) -> None:
            nonlocal left
            answer = _answer_of(message, path_of)
            row, _ = lane.sent.popleft()
            if row != message.get("row"):
                raise RuntimeError("a decoding process answered for an image that it was not sent next")
            left -= 1
            receive(row, answer)

        while left:
            try:
                self._start_lanes(len(waiting))
                for lane in list(self._lanes.values()):
                    self._send(lane, waiting, slots, path_of)
                self._listen(answered)
            except _ServerGone:
                for lane in self._lanes.values():
                    waiting.extendleft(row for row, _ in reversed(lane.sent))
                self._stop()
                continue
            for lane in [lane for lane in self._lanes.values() if lane.closed and lane.ended is not None]:
                self._forget(lane)
                if lane.sent:
                    row, _ = lane.sent.popleft()
                    waiting.extendleft(row for row, _ in reversed(lane.sent))
                    if lane.ended == -signal.SIGKILL and row not in self._again:
                        self._again.add(row)  # what kills from outside, such as a lack of memory, may be over
                        waiting.appendleft(row)
                        continue
                    left -= 1
                    receive(row, Answer([], [], _ending(lane.ended or 0)))

    def _start_lanes(self, waiting: int) -> None:
        """Start processes in place of those that ended, but no more than there are images left."""
        if self._server is None:
            self._start_server()
        for number in range(self._count):
            if number not in self._lanes and waiting > 0:
                self._lanes[number] = self._new_lane(number)

    def _start_server(self) -> None:
        if self._starts == _SERVER_STARTS:
            raise ResourceError(
                f"images are decoded in processes of their own, but the one that starts them ended {_SERVER_STARTS} "
                "times: make memory free, or see what it printed above."
            )
        self._starts += 1
        ours, theirs = socket.socketpair()
        path = json.dumps([entry or str(Path.cwd()) for entry in sys.path])
        try:
            self._server = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, path, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # no signal of the terminal reaches it; it ends when `ours` closes
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        except OSError as error:
            ours.close()
            raise ResourceError(
                f"images are decoded in processes of their own, but none can be started ({error.strerror}): "
                "make memory free, or raise the limit on processes."
            ) from None
        finally:
            theirs.close()
        self._control = ours
        self._heard.clear()
        self._selector.register(ours, selectors.EVENT_READ, None)

    def _new_lane(self, number: int) -> _Lane:
        assert self._control is not None
        ours, theirs = socket.socketpair()
        try:
            socket.send_fds(self._control, [number.to_bytes(4, "big")], [theirs.fileno()])
        except OSError:
            ours.close()
            raise _ServerGone from None
        finally:
            theirs.close()
        lane = _Lane(number, ours)
        try:
            while not any("process" in message for message in self._hear()):
                pass  # two sockets in a row could arrive as one message
        except _ServerGone:
            ours.close()
            raise
        try:
            ours.sendall(json.dumps(self._setup).encode() + b"\n")
        except OSError:
            lane.closed = True
        self._selector.register(ours, selectors.EVENT_READ, lane)
        return lane

    def _send(
        self, lane: _Lane, waiting: deque[int], slots: Mapping[int, int], path_of: Callable[[int], Path | Frame]
    ) -> None:
        """Send images until the lane has enough; near the end, few, so that no process is left with many."""
        most = max(1, min(_AHEAD, len(waiting) // (2 * self._count)))
        while waiting and not lane.closed and len(lane.sent) < most:
            source = path_of(waiting[0])
            path, frame = (source.path, source.number) if isinstance(source, Frame) else (source, None)
            request = {"row": waiting[0], "slot": slots[waiting[0]], "path": os.fsdecode(path), "frame": frame}
            line = json.dumps(request).encode() + b"\n"
            if lane.sent and sum(size for _, size in lane.sent) + len(line) > _AHEAD_BYTES:
                return
            lane.sent.append((waiting.popleft(), len(line)))
            try:
                lane.socket.sendall(line)
            except OSError:
                return  # it has ended, as its socket and the server are about to say

    def _listen(self, answered: Callable[[_Lane, dict[str, Any]], None]) -> None:
        for key, _ in self._selector.select(1.0):
            lane: _Lane | None = key.data
            if lane is None:
                self._hear()
                continue
            data = b""
            with contextlib.suppress(ConnectionError):
                data = lane.socket.recv(1 << 16)
            if not data:
                lane.closed = True
                self._selector.unregister(lane.socket)
                continue
            lane.buffer += data
            *lines, rest = lane.buffer.split(b"\n")
            lane.buffer = bytearray(rest)
            for line in lines:
                answered(lane, json.loads(line))

    def _hear(self) -> list[dict[str, Any]]:
        """Take what the server says, wait for it if necessary, and note which processes ended."""
        assert self._control is not None
        data = b""
        with contextlib.suppress(ConnectionError):
            data = self._control.recv(1 << 16)
        if not data:
            raise _ServerGone
        self._heard += data
        *lines, rest = self._heard.split(b"\n")
        self._heard = bytearray(rest)
        messages = [json.loads(line) for line in lines]
        for message in messages:
            if "ended" in message and message["lane"] in self._lanes:
                self._lanes[message["lane"]].ended = message["ended"]
        return messages

    def _forget(self, lane: _Lane) -> None:
        del self._lanes[lane.number]
        lane.socket.close()

    def _stop(self) -> None:
        """Kill the server and all processes, whatever they are doing."""
        server, self._server = self._server, None
        if server is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(server.pid, signal.SIGKILL)  # its number is its own until `wait`
            server.wait()
        for lane in list(self._lanes.values()):
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(lane.socket)
            self._forget(lane)
        if self._control is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(self._control)
            self._control.close()
            self._control = None


class _ServerGone(Exception):
    """The process that starts the others has ended."""


def _answer_of(message: dict[str, Any], path_of: Callable[[int], Path | Frame]) -> Answer:
    if "values" in message:
        return Answer(message["values"], message["checks"])
    if "bad" in message:
        return Answer([], [], str(message["bad"]))
    if "memory" in message:
        raise ResourceError(
            f"{path_of(message['row']).name} does not fit into the memory that is free: make memory free, or lower "
            "data.max_megapixels."
        )
    if "errno" in message:
        raise OSError(message["errno"], os.strerror(message["errno"]), message["file"])
    raise RuntimeError(f"a decoding process failed:\n{message.get('fault')}")


def _ending(ended: int) -> str:
    """Return the reason why a file is unreadable, from how its process ended."""
    way_out = "convert it to PNG with the program that wrote it, or remove it"
    if ended == -signal.SIGPROF:
        return f"keeps its decoder busy for more than {PROCESSOR_SECONDS:g} s: {way_out}"
    if ended == -signal.SIGALRM:
        return f"takes longer than {SECONDS:g} s: {way_out}"
    if ended == -signal.SIGKILL:
        return (
            "had its decoder killed twice (signal 9), as happens when memory runs out: make memory free, or remove it"
        )
    if ended < 0:
        return f"makes its decoder crash (signal {-ended}): {way_out}"
    return f"makes its decoder end (exit code {ended}): {way_out}"
