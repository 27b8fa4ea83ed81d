"""The studies that are here: what `harness list` shows and `harness rm` takes away."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime

import optuna

from harness.errors import HarnessError
from harness.results.events import read_events
from harness.results.home import StudyFolder, home
from harness.results.study_state import StudyState
from harness.study.lock import held, is_held
from harness.study.optuna_store import open_storage
from harness.tracking.mlflow_store import delete_experiment
from harness.tracking.store import address_of


@dataclass(frozen=True)
class Entry:
    """One line of the list."""

    name: str
    state: str  # finished, running, unfinished, damaged
    trials: int  # that have ended, in search and confirmation
    size: str
    age: str


def shelf() -> list[Entry]:
    """Every study in the home folder, by name."""
    return [_entry(StudyFolder(path.parent.name)) for path in sorted(home().glob("*/study.json"))]


def _entry(folder: StudyFolder) -> Entry:
    size = sum(path.stat().st_size for path in folder.path.rglob("*") if path.is_file())
    changed = folder.events.stat().st_mtime if folder.events.exists() else folder.study_json.stat().st_mtime
    try:
        study = StudyState.of(read_events(folder.events))
        state = "running" if is_held(folder) else "finished" if study.done else "unfinished"
        trials = len(study.finished) + len(study.later)
    except HarnessError:
        state, trials = "damaged", 0
    return Entry(folder.name, state, trials, _bytes(size), _ago(changed))


def remove_study(folder: StudyFolder) -> None:
    """Take a study away, everywhere; its images in the cache stay, since other studies may share them.

    Raises:
        StudyHeldError: it is running.
        ConfigError: MLflow's address lacks the password, which was not stored; nothing is taken away then.
    """
    with held(folder):
        address = address_of(folder.name, folder.tracking_uri())  # before anything is gone: its password may be missing
        storage = open_storage(home() / "optuna.db")
        for name in optuna.get_all_study_names(storage):
            if name.rpartition("/")[0] == folder.name:
                optuna.delete_study(study_name=name, storage=storage)
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
