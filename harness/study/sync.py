"""`harness sync`: a study's event log replayed into Optuna's storage and MLflow, without images, models or training."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.config.space import space
from harness.config.study import StudyConfig
from harness.errors import ConfigError, HarnessError, ResourceError
from harness.results.event_types import StudyCreated, TrialFinished
from harness.results.events import Event, read_events
from harness.results.paths import StudyFolder
from harness.results.study_state import EndedTrial, StudyState
from harness.safe_text import lacks_password, masked, with_password
from harness.search.optuna_journal import ID, OptunaMirror, Place
from harness.study.lock import held
from harness.tracking import mapping as shown
from harness.tracking.address import TrackingUnavailable, address_of, in_study_file
from harness.tracking.mlflow_runs import MlflowBridge

Say = Callable[[str], None]


def sync(folder: StudyFolder, say: Say) -> list[str]:
    """Bring both stores to what the log says; what was sent, in a line for each store.

    Raises:
        StudyHeldError: the study runs, and sends by itself.
        ResourceError: the MLflow server does not answer; Optuna's storage has been written by then.
        HarnessError: the log is damaged.
    """
    with held(folder):
        events = read_events(folder.events)
        if not events:
            raise HarnessError(f"the study {folder.name} has no event yet, so there is nothing to send")
        study = stored_study(folder, events)
        mirror(folder, study, events)
        try:
            lines = [_to_mlflow(folder, study, events)]
        except TrackingUnavailable as error:
            raise ResourceError(
                f"{str(error).partition('; the study goes on')[0]}; nothing is lost: `harness sync {folder.name}` "
                f"sends it when it answers, and `harness doctor {folder.name}` looks into a database of this machine."
            ) from None
        lines += _model_missing(folder, events)
        where = name_of(storage_of(folder, study))
        return [f"{where} holds what the log of {folder.name} says.", *lines]


def stored_study(folder: StudyFolder, events: Sequence[Event]) -> StudyConfig:
    """The resolved study: of study.json, or where that cannot be read as the log says it was created."""
    try:
        document = json.loads(folder.study_json.read_text(encoding="utf-8"))
        return StudyConfig.model_validate(document["study"])
    except (OSError, ValueError, KeyError, TypeError):
        created = events[0].data
        return StudyConfig.model_validate(created.study if isinstance(created, StudyCreated) else None)


def storage_of(folder: StudyFolder, study: StudyConfig) -> Place:
    """Where Optuna's copy of the search lies: `optuna.log`, or the database that `storage` names, with its password.

    Raises:
        ConfigError: the address lacks its password, and neither studies/NAME.yaml nor the environment says it.
    """
    return folder.optuna_log if study.storage is None else storage_address(folder.name, study.storage)


def storage_address(name: str, stored: str) -> str:
    """The address of a study's Optuna storage; see `storage_of`."""
    if not lacks_password(stored):
        return stored
    password = os.environ.get("HARNESS_STORAGE_PASSWORD")
    whole = in_study_file(name, "storage", stored) or (with_password(stored, password) if password else None)
    if whole is None:
        raise ConfigError(
            f"the password of the Optuna storage {stored} is not stored with the study, but it is needed here: set "
            "HARNESS_STORAGE_PASSWORD."
        )
    return whole


def name_of(place: Place) -> str:
    """What messages call a storage."""
    return place.name if isinstance(place, Path) else f"The storage {masked(place)}"


def open_mirror(
    folder: StudyFolder,
    study: StudyConfig,
    created: Event,
    say: Say,
    run_of: Callable[[str], str | None] = lambda key: None,
) -> OptunaMirror:
    """Optuna's copy of a study, ready to be started.

    Args:
        created: the log's first event.
        run_of: see `OptunaMirror`.
    """
    attributes = {
        ID: shown.study_id(folder.name, created),
        "study": folder.name,
        "description": study.description,
        "objective": study.objective,
        "seed": study.seed,
        "epochs": study.epochs,
        "data_digest": created.data.fingerprint.get("data digest") if isinstance(created.data, StudyCreated) else None,
    }
    spaces = [space(study, strategy) for strategy in study.strategies]
    place = storage_of(folder, study)
    return OptunaMirror(place, folder.name, spaces, study.objective, say, attributes=attributes, run_of=run_of)


def mirror(
    folder: StudyFolder,
    study: StudyConfig,
    events: Sequence[Event],
    ended: Sequence[tuple[str, EndedTrial]] | None = None,
) -> None:
    """Write what Optuna's storage lacks of the log.

    Args:
        ended: the ended trials of these events, where they are known.

    Raises:
        HarnessError: it does not take it.
    """
    failures: list[str] = []
    copy = open_mirror(folder, study, events[0], failures.append)
    copy.start(StudyState.of(events, study.objective).ended if ended is None else ended)
    copy.finish()
    if failures:
        raise HarnessError(failures[0])


def bridge_of(folder: StudyFolder, study: StudyConfig) -> MlflowBridge:
    """MLflow as this study reaches it."""
    return MlflowBridge(folder.name, study.description, address_of(folder.name, study.tracking_uri), folder)


def _to_mlflow(folder: StudyFolder, study: StudyConfig, events: Sequence[Event]) -> str:
    bridge = bridge_of(folder, study)
    sent = bridge.catch_up(events, patient=True)
    bridge.log_artifacts()
    where = f"MLflow at {masked(bridge.address)}"
    if not sent:
        return f"{where} had all {len(events)} events of {folder.name}."
    trials = sum(isinstance(event.data, TrialFinished) for event in events[-sent:])
    return f"{where} took {sent} of {len(events)} events of {folder.name}, {trials} finished trials among them."


def _model_missing(folder: StudyFolder, events: Sequence[Event]) -> list[str]:
    """A word on the recommended model, which no log can hold."""
    state = StudyState.of(events)
    wanted = state.verdicts[-1].recommended_trial if state.verdicts else None
    if wanted is None or wanted in state.models:
        return []
    return [f"The recommended model is not there: `make study NAME={folder.name}` logs it, with the images at hand."]
