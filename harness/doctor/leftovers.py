"""Find what dead processes left: half-written files, staged images, a lock's owner file, and pins of activations.

A pin protects the activations that a running study uses from being evicted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from harness.data.staging import left_behind, remove_left_behind
from harness.doctor.case import Case, Finding
from harness.results.paths import home

_HALF = re.compile(r"^\..*\.(partial|part|tmp)(\.\w+)?$")
_OF_PROCESS = re.compile(r"\.(\d+)\.(?:partial|part|tmp)(?:\.\w+)?$")


def check(case: Case) -> Iterator[Finding]:
    """Check for files, staged images, owner files and pins whose process is gone."""
    for path in _half_written(case):
        yield Finding(
            str(path.relative_to(home())),
            "half of a file, whose process ended while it was writing",
            f"it takes {path.stat().st_size / 1e6:.1f} MB",
            "--fix removes it.",
            partial(_removed, path),
        )
    if not case.running:  # a running study does not own what it staged between its scan and its array
        for staged in left_behind(home() / "cache"):
            size = sum(path.stat().st_size for path in staged.glob("*"))
            yield Finding(
                f"cache/staged/{staged.name}",
                "resized images of a start that ended before it had made an array of them",
                f"it takes {size / 1e6:.1f} MB; the next start with the same data and size would go on with it",
                "--fix removes it.",
                partial(_staged_removed, staged),
            )
    folder = case.folder
    if folder.owner.exists() and not case.running:
        yield Finding(
            f"locks/{folder.owner.name}",
            "it names a process that no longer runs the study",
            "a message might name that process",
            "--fix removes it.",
            partial(_removed, folder.owner),
        )
    for pin in sorted((home() / "cache" / "prefix" / "pins").glob("*.json")):
        own = pin.stem == folder.name
        if not _alive(pin) or (own and not case.running):
            yield Finding(
                f"cache/prefix/pins/{pin.name}",
                "it protects activations for a process that is gone",
                "they are not removed when the cache is full",
                "--fix removes it.",
                partial(_removed, pin),
            )


def _half_written(case: Case) -> list[Path]:
    """Return the files with a temporary name that no process writes any more."""
    own = [] if case.running else [path for path in case.folder.path.rglob(".*") if _HALF.match(path.name)]
    shared = [
        path
        for folder in (home(), home() / "cache", home() / "cache" / "prefix", home() / "cache" / "images")
        if folder.is_dir()
        for path in folder.iterdir()
        if _HALF.match(path.name) and _of_dead(path)
    ]
    return sorted(path for path in {*own, *shared} if path.is_file())


def _of_dead(path: Path) -> bool:
    """Whether no process writes the file any more: its process is gone, its lock is free, or the final file exists."""
    if found := _OF_PROCESS.search(path.name):
        return not psutil.pid_exists(int(found.group(1)))
    if path.suffix == ".part":  # an array of images: see data.dataset.arrays
        try:
            with FileLock(path.with_name(f"{path.name[1:]}").with_suffix(".lock"), timeout=0):
                return True
        except Timeout:
            return False
    return path.with_name(path.name[1:]).with_suffix("").exists()


def _alive(pin: Path) -> bool:
    try:
        return psutil.pid_exists(int(json.loads(pin.read_text(encoding="utf-8"))["pid"]))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _staged_removed(folder: Path) -> str:
    return "removed" if remove_left_behind(folder) else "kept, because another process goes on with it now"


def _removed(path: Path) -> str:
    path.unlink(missing_ok=True)
    return "removed"
