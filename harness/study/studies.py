"""List and remove the studies in the home folder, for `harness list` and `harness rm`."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.atomic import disk_errors
from harness.errors import HarnessError
from harness.results.events import Event, first_event, read_events
from harness.results.inside import is_plain_file
from harness.results.paths import StudyFolder, names_in_home
from harness.results.stored_study import read_object, stored_document
from harness.results.study_state import StudyState
from harness.search import optuna_journal
from harness.search.optuna_journal import describe_location
from harness.study.lock import held, is_held, owner
from harness.study.sync import storage_address
from harness.tracking.address import address_of
from harness.tracking.mapping import study_id
from harness.tracking.mlflow_store import delete_study


@dataclass(frozen=True)
class StudyRow:
    """One row of the list of studies."""

    name: str
    state: str  # "finished", "running", "unfinished" or "damaged"
    trials: int  # number of finished trials of all kinds
    size: str  # of all files, for example "12 MB"
    age: str  # since the last event, for example "3 hours ago"


def list_studies() -> list[StudyRow]:
    """Return a row for every study in the home folder, by name."""
    return [_row(StudyFolder(name)) for name in names_in_home()]


def _row(folder: StudyFolder) -> StudyRow:
    try:
        folder.check_inside()
        study = StudyState.of(read_events(folder.events))
        trials = len(study.finished) + len(study.later)
        if _is_running(folder):  # its first files may not be there yet
            state = "running"
        else:
            state = "damaged" if _fault(folder) else "finished" if study.done else "unfinished"
    except Exception:  # a file that no study leaves behind; the other studies must still be listed
        state, trials = "damaged", 0
    return StudyRow(folder.name, state, trials, _bytes(_size(folder.path)), _ago(_changed(folder)))


def _is_running(folder: StudyFolder) -> bool:
    """Whether a process runs the study; if HARNESS_HOME cannot be written, by the owner that is noted there."""
    try:
        return is_held(folder)
    except OSError:  # the lock is a file that has to be opened for writing
        return owner(folder) is not None


def _fault(folder: StudyFolder) -> bool:
    """Whether what the next session needs is lost: the study itself in study.json, or the start of its log."""
    stored = read_object(folder.study_json)
    return first_event(folder.events) is None or not isinstance(stored.get("study"), dict)


def _changed(folder: StudyFolder) -> float:
    """Return when the study's last event was written, in seconds since 1970; without a log, when its folder changed."""
    for path in (folder.events, folder.study_json, folder.path):
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
    return 0.0


def _size(folder: Path) -> int:
    """Return the bytes of all files below a folder; files may appear and disappear meanwhile."""
    size = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file() and not path.is_symlink():
                size += path.stat().st_size
    return size


def remove_study(folder: StudyFolder) -> list[str]:
    """Remove a study everywhere, except its images in the cache, which other studies may share.

    A damaged study is removed too. No link in its folder is followed.

    Returns:
        What could not be removed because nothing readable names it, a line each.

    Raises:
        StudyHeldError: the study is running.
        ConfigError: an address is not used, or lacks its password, see `address_of`; nothing is removed then.
        DiskFullError: the folder cannot be written.
    """
    left = []
    with disk_errors(folder.path), held(folder):
        document, created = _document_and_creation(folder)
        if document is None:
            left.append("Nothing readable says where else its trials were stored; another database keeps its copy.")
            document = {"study": {}}
        # The addresses come before anything is removed, because they may be refused.
        address = address_of(document["study"].get("tracking_uri") or None)
        if stored := document["study"].get("storage"):  # without one, optuna.log is in the folder
            storage = storage_address(stored)
            if created is None:
                left.append(f"Its log cannot be read, so {describe_location(storage)} keeps its copy of the trials.")
            else:
                optuna_journal.remove(storage, folder.name, study_id(folder.name, created))
        if created is not None:
            delete_study(address, study_id(folder.name, created))
        else:
            left.append("Its log cannot be read, so its runs in MLflow are not known and are still there.")
        if folder.path.is_symlink():
            folder.path.unlink()
            left.append("Its folder was a link: what it led to is still there.")
        else:
            shutil.rmtree(folder.path)
        shutil.rmtree(folder.report, ignore_errors=True)
    return left


def _document_and_creation(folder: StudyFolder) -> tuple[dict[str, Any] | None, Event | None]:
    """Return the content of study.json and the log's first event, each None if it cannot be read or is no plain file.

    A link would be followed and a pipe would be waited for.
    """
    if not all(is_plain_file(path) for path in (folder.study_json, folder.events) if path.exists()):
        return None, None
    try:
        return stored_document(folder), first_event(folder.events)
    except HarnessError:
        return None, None


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _ago(changed: float) -> str:
    seconds = max(datetime.now(UTC).timestamp() - changed, 0)
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return "just now"
