"""Lock a study for one process. This file does not import torch, so that every command can use it at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from filelock import FileLock, Timeout

from harness.atomic import disk_errors
from harness.errors import StudyHeldError
from harness.results.paths import StudyFolder

LOOK_SECONDS = 2.0  # another process may hold the lock for a moment, only to see whether it is free
SAME_START_SECONDS = 60.0  # a start time may move by so much if the clock is set


@contextmanager
def held(folder: StudyFolder, *, as_owner: bool = True) -> Iterator[None]:
    """Hold the study's lock inside the block.

    Args:
        as_owner: write this process to the owner file, and remove the file after the block. If it is False, for a
            process that does not run the study, that file is not touched.

    Raises:
        StudyHeldError: another process holds the lock; the message has its process id.
        DiskFullError: the owner file cannot be written.
    """
    folder.lock.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.lock)
    try:
        lock.acquire(timeout=0 if owner(folder) else LOOK_SECONDS)
    except Timeout:
        raise StudyHeldError(
            f"the study {folder.name} is being run by process {owner(folder) or 'unknown'}; "
            "wait for it, or start another one with AS=newname"
        ) from None
    try:
        if as_owner:
            with disk_errors(folder.owner):
                folder.owner.write_text(f"{os.getpid()} {psutil.Process().create_time()}", encoding="ascii")
        yield
    finally:
        if as_owner:
            folder.owner.unlink(missing_ok=True)
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
    """Return the process id in the owner file if that process still runs; otherwise None.

    A killed process leaves its file, and the system may give its number to another process. Such a process started at
    another time. The lock is not taken, so this never blocks a study.
    """
    if folder.place is not None:  # it lies outside HARNESS_HOME, where no study runs
        return None
    try:
        noted, _, start = folder.owner.read_text(encoding="ascii").strip().partition(" ")
        process = psutil.Process(int(noted))
        is_other = bool(start) and abs(process.create_time() - float(start)) > SAME_START_SECONDS
    except (OSError, ValueError, OverflowError, psutil.Error):
        return None
    return None if is_other else process.pid
