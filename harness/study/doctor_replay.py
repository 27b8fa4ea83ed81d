"""A database that all studies share, made anew from all their logs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from harness.errors import HarnessError
from harness.results import database
from harness.results.event_types import StudyCreated
from harness.results.events import Event, read_events
from harness.results.home import StudyFolder, home
from harness.study.doctor_case import Case
from harness.study.lock import all_others_held
from harness.study.sync import bridge_of, mirror, stored_study
from harness.tracking.store import address_of, sqlite_path


def replay_all(case: Case, store: Literal["optuna", "mlflow"], path: Path, *, aside: bool) -> str:
    """Write every study's log into a new database; what was done.

    Args:
        path: of the database.
        aside: there is a damaged one, which is moved out of the way first; nothing here may have it open.

    Raises:
        StudyHeldError: another study runs, and writes to it.
    """
    with all_others_held(case.folder):
        done = f"moved to {database.set_aside(path).name} and " if aside else ""
        names, left = [], []
        for folder, events in _studies():
            case.say(f"Writing {folder.name} into {store} again …")
            try:
                _replay(folder, events, store, path)
                names.append(folder.name)
            except HarnessError as error:
                left.append(f"{folder.name} ({error})")
        told = f"{done}written again from the logs of {', '.join(names) or 'no study'}"
        return told + (f"; not of {', '.join(left)}" if left else "")


def _studies() -> Iterator[tuple[StudyFolder, list[Event]]]:
    """Every study whose log can be read."""
    for path in sorted(home().glob("*/events.jsonl")):
        folder = StudyFolder(path.parent.name)
        try:
            events = read_events(path)
        except HarnessError:
            continue  # its own doctor says so
        if events and isinstance(events[0].data, StudyCreated):
            yield folder, events


def _replay(folder: StudyFolder, events: list[Event], store: str, path: Path) -> None:
    study = stored_study(folder, events)
    if store == "optuna":
        mirror(folder.name, study, events)
    elif sqlite_path(address_of(folder.name, study.tracking_uri)) == path:
        bridge = bridge_of(folder, study, thorough=True)
        bridge.catch_up(events, patient=True)
        bridge.log_artifacts()
