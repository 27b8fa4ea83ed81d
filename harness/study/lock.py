"""Lock a study for one process. This file does not import torch, so that every command can use it at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from filelock import FileLock, Timeout

from harness.errors import StudyHeldError
from harness.results.paths import StudyFolder


@contextmanager
def held(folder: StudyFolder, *, as_owner: bool = True) -> Iterator[None]:
    """Hold the study's lock inside the block.

    Args:
        as_owner: write this process to the owner file. If it is False, for a process that does not run the study, that
            file is not touched.

    Raises:
        StudyHeldError: another process holds the lock; the message has its process id.
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
        if as_owner:
            folder.owner.write_text(str(os.getpid()))
        yield
        if as_owner:
            folder.owner.unlink(missing_ok=True)
    finally:
        lock.release()


def is_held(folder: StudyFolder) -> bool:
    """Whether a process is running the study now."""
    if not folder.lock.exists():
        return False
    try:
        with held(folder, as_owner=False):
            return False
    except StudyHeldError:
        return True


def owner(folder: StudyFolder) -> int | None:
    """Return the process id in the owner file if that process exists; otherwise None.

    It does not take the lock, so it never blocks a study.
    """
    if folder.place is not None:  # it lies outside HARNESS_HOME, where no study runs
        return None
    noted = _noted(folder)
    return int(noted) if noted.isdigit() and psutil.pid_exists(int(noted)) else None


def _noted(folder: StudyFolder) -> str:
    try:
        return folder.owner.read_text().strip()
    except (OSError, ValueError):
        return ""
