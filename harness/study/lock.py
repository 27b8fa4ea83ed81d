"""Who works on a study: its lock, and the note that names the process. Needs no torch, so that any command may ask."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from filelock import FileLock, Timeout

from harness.errors import StudyHeldError
from harness.results.paths import StudyFolder


@contextmanager
def held(folder: StudyFolder, *, sign: bool = True) -> Iterator[None]:
    """Hold the study's lock; raises StudyHeldError with the owner's process number where another does.

    Args:
        sign: note this process as the owner; without it what lies there stays, for one who only looks.
    """
    folder.lock.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.lock, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise StudyHeldError(
            f"the study {folder.name} is being run by process {_noted(folder) or 'unknown'}; "
            "wait for it, or start another one with AS=newname"
        ) from None
    try:
        if sign:
            folder.owner.write_text(str(os.getpid()))
        yield
        if sign:
            folder.owner.unlink(missing_ok=True)
    finally:
        lock.release()


def is_held(folder: StudyFolder) -> bool:
    """Whether some process works on the study now."""
    if not folder.lock.exists():
        return False
    try:
        with held(folder, sign=False):
            return False
    except StudyHeldError:
        return True


def owner(folder: StudyFolder) -> int | None:
    """The process that noted itself as the owner and lives; asks no lock, so it never stands in a study's way."""
    if folder.place is not None:  # lies outside HARNESS_HOME, where nobody works on it
        return None
    noted = _noted(folder)
    return int(noted) if noted.isdigit() and psutil.pid_exists(int(noted)) else None


def _noted(folder: StudyFolder) -> str:
    try:
        return folder.owner.read_text().strip()
    except (OSError, ValueError):
        return ""
