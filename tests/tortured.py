"""The small study of `harness.benchmarks.fault_injection`, made smaller still, as a user runs it."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from typing import Any

from harness.benchmarks.fault_injection.sandbox import Sandbox

SMALL: dict[str, Any] = {"trials": 1, "controlled": {"changes": 0}, "data_sizes": [], "shifts": []}


@dataclass(frozen=True)
class Undisturbed:
    """The study when nothing happens to it."""

    place: Sandbox
    numbers: dict[str, Any]


def said(place: Sandbox) -> str:
    return (place.root / "output.txt").read_text()


def finish(place: Sandbox) -> None:
    process = place.start()
    assert process.wait(240) == 0, said(place)


def lines(place: Sandbox) -> int:
    return place.log.read_bytes().count(b"\n") if place.log.exists() else 0


def until(place: Sandbox, count: int, process: subprocess.Popen[bytes]) -> None:
    """Wait for so many lines of the log."""
    end = time.monotonic() + 120
    while lines(place) < count:
        assert process.poll() is None, said(place)
        assert time.monotonic() < end
        time.sleep(0.01)
