"""The studies that are here: what `harness list` shows and `harness rm` takes away."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import HarnessError
from harness.results.events import first_event, read_events
from harness.results.paths import StudyFolder, home
from harness.results.study_state import StudyState
from harness.search import optuna_journal
from harness.study.lock import held, is_held
from harness.study.sync import storage_address
from harness.tracking import mapping as shown
from harness.tracking.address import address_of
from harness.tracking.mlflow_store import delete_experiment


@dataclass(frozen=True)
class StudyRow:
    """One line of the list."""

    name: str
    state: str  # finished, running, unfinished, damaged
    trials: int  # that have ended, in search and confirmation
    size: str
    age: str


def list_studies() -> list[StudyRow]:
    """Every study in the home folder, by name."""
    return [_entry(StudyFolder(path.parent.name)) for path in sorted(home().glob("*/study.json"))]


def _entry(folder: StudyFolder) -> StudyRow:
    changed = folder.events.stat().st_mtime if folder.events.exists() else folder.study_json.stat().st_mtime
    try:
        study = StudyState.of(read_events(folder.events))
        state = "running" if is_held(folder) else "finished" if study.done else "unfinished"
        trials = len(study.finished) + len(study.later)
    except HarnessError:
        state, trials = "damaged", 0
    return StudyRow(folder.name, state, trials, _bytes(_size(folder.path)), _ago(changed))


def _size(folder: Path) -> int:
    """Bytes of all files below a folder; files may come and go meanwhile."""
    size = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and not path.is_symlink():
                size += path.stat().st_size
    return size


def remove_study(folder: StudyFolder) -> None:
    """Take a study away, everywhere; its images in the cache stay, since other studies may share them.

    Raises:
        StudyHeldError: it is running.
        ConfigError: an address lacks the password, which was not stored; nothing is taken away then.
    """
    with held(folder):
        address = address_of(folder.name, folder.tracking_uri())  # before anything is gone: its password may be missing
        stored, created = folder.storage(), first_event(folder.events)
        if stored and created:  # optuna.log goes with the folder
            storage = storage_address(folder.name, stored)
            optuna_journal.remove(storage, folder.name, shown.study_id(folder.name, created))
        delete_experiment(folder.name, address)
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
