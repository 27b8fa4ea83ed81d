"""`harness ui` in a process of its own, on a port of this machine."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

START_SECONDS = 90


@contextmanager
def serving(address: str, port: int, more: str = "") -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run `serve` with this database; yield the process and the lines it said so far. It has gone at the end."""
    script = "import sys; from harness.tracking.ui import serve; sys.exit(serve('microscopy', port=%d, address=%r%s))"
    command = [sys.executable, "-u", "-c", script % (port, address, more)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines: list[str] = []
    try:
        end = time.monotonic() + START_SECONDS
        while "Ctrl-C stops it." not in lines and time.monotonic() < end:
            line = process.stdout.readline()
            assert line, f"it ended with {process.wait()} after {lines}"
            lines.append(line.strip())
        yield process, lines
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
