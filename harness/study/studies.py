"""List and remove the studies in the home folder, for `harness list` and `harness rm`."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import HarnessError
from harness.results.events import first_event, read_events
from harness.results.paths import StudyFolder, names_in_home
from harness.results.study_state import StudyState
from harness.search import optuna_journal
from harness.study.lock import held, is_held
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
    changed = folder.events.stat().st_mtime if folder.events.exists() else folder.study_json.stat().st_mtime
    try:
        study = StudyState.of(read_events(folder.events))
        state = "running" if is_held(folder) else "finished" if study.done else "unfinished"
        trials = len(study.finished) + len(study.later)
    except HarnessError:
        state, trials = "damaged", 0
    return StudyRow(folder.name, state, trials, _bytes(_size(folder.path)), _ago(changed))


def _size(folder: Path) -> int:
    """Return the bytes of all files below a folder; files may appear and disappear meanwhile."""
    size = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and not path.is_symlink():
                size += path.stat().st_size
    return size


def remove_study(folder: StudyFolder) -> None:
    """Remove a study everywhere, except its images in the cache, which other studies may share.

    Raises:
        StudyHeldError: the study is running.
        ConfigError: an address lacks its password, which is not stored; nothing is removed then.
    """
    with held(folder):
        # The addresses come before anything is removed, because a password may be missing.
        address = address_of(folder.name, folder.tracking_uri())
        stored, created = folder.storage(), first_event(folder.events)
        if stored and created:  # optuna.log is in the folder
            storage = storage_address(folder.name, stored)
            optuna_journal.remove(storage, folder.name, study_id(folder.name, created))
        if created:  # without it, nothing says which runs are its own
            delete_study(address, study_id(folder.name, created))
        shutil.rmtree(folder.path)
        shutil.rmtree(folder.report, ignore_errors=True)


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
