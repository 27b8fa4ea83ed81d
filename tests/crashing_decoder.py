"""A decoder that ends its process, or does not come to an end, as the file tells it. Decoding processes import it."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Any

from harness.data import reading

LOG = "HARNESS_TEST_READ_FILES"  # names the file that gets a line for each image that is read


def examine(path: Path, *rest: Any) -> tuple[list[Any], list[int]]:
    """As `reading.examine`, unless the file begins with one of the words below."""
    if LOG in os.environ:
        with Path(os.environ[LOG]).open("a") as log:
            log.write(f"{path.name}\n")
    word = path.read_bytes()[:4]
    if word == b"SEGV":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif word == b"NULL":
        ctypes.string_at(0)  # a real one
    elif word == b"ABRT":
        os.abort()
    elif word == b"EXIT":
        os._exit(3)
    elif word == b"KILL":
        os.kill(os.getpid(), signal.SIGKILL)
    elif word == b"LOOP":
        while True:
            pass
    elif word == b"WAIT":
        time.sleep(3600)
    elif word == b"FULL":
        raise MemoryError
    elif word == b"ONCE" and _first(path):
        os.kill(os.getpid(), signal.SIGKILL)
    elif word == b"SERV" and _first(path):
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(3600)
    if word in (b"ONCE", b"SERV"):
        path = path.with_suffix(".whole")
    return reading.examine(path, *rest)


def _first(path: Path) -> bool:
    try:
        path.with_suffix(".seen").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
