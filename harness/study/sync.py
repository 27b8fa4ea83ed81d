"""Send a study's event log to Optuna's storage and to MLflow: `harness sync`. Needs no images and trains nothing.

Coordinator and doctor open both stores with the functions of this file too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from harness.atomic import disk_errors
from harness.config.space import space
from harness.config.study import StudyConfig
from harness.errors import ConfigError, HarnessError, ResourceError
from harness.results.event_types import StudyCreated, TrialFinished
from harness.results.events import Event, read_events
from harness.results.paths import StudyFolder
from harness.results.stored_study import stored_document
from harness.results.study_state import EndedTrial, StudyState
from harness.safe_text import lacks_password, masked, with_password
from harness.search.optuna_journal import ID, Location, OptunaMirror, describe_location
from harness.study.lock import held
from harness.tracking.address import TrackingUnavailable, address_of, given_in_studies
from harness.tracking.mapping import study_id
from harness.tracking.mlflow_runs import MlflowBridge

Say = Callable[[str], None]


def sync(folder: StudyFolder, say: Say) -> list[str]:
    """Send both stores the events that they lack, and return a line about each store.

    Raises:
        StudyHeldError: the study is running, and sends its events itself.
        ResourceError: the MLflow server does not answer; Optuna's storage was written before.
        HarnessError: the log is damaged.
        ConfigError: a link leads out of the study's folder, and what it leads to would be sent.
    """
    with disk_errors(folder.path), held(folder):
        folder.check_inside()
        events = read_events(folder.events)
        if not events:
            raise HarnessError(f"the study {folder.name} has no event yet, so there is nothing to send")
        study = StudyConfig.model_validate(stored_document(folder)["study"])
        location = storage_location(folder, study)
        mirror(folder, study, events, location)
        try:
            lines = [_to_mlflow(folder, study, events)]
        except TrackingUnavailable as error:
            raise ResourceError(
                f"{str(error).partition('; the study goes on')[0]}; nothing is lost: `harness sync {folder.name}` "
                f"sends it when it answers, and `harness doctor {folder.name}` checks a database on this machine."
            ) from None
        lines += _model_missing(folder, events)
        return [f"{describe_location(location)} holds all trials of the log of {folder.name}.", *lines]


def storage_location(folder: StudyFolder, study: StudyConfig) -> Location:
    """Return where Optuna's copy of a stored study is: `optuna.log`, or the address in `storage` with its password.

    Raises:
        ConfigError: as `storage_address`.
    """
    return folder.optuna_log if study.storage is None else storage_address(study.storage)


def storage_address(stored: str) -> str:
    """Return the address of a stored study's Optuna storage with its password, if the user gave that address himself.

    The study may be from someone else, and would otherwise get the user's password, or have a file of his written.

    Args:
        stored: the stored study's `storage`, without a password.

    Raises:
        ConfigError: neither HARNESS_STORAGE nor a file of studies/ names the address, or its password is missing.
    """
    own = os.environ.get("HARNESS_STORAGE", "")
    given = own if own and masked(own) == stored else given_in_studies("storage", stored)
    if given is None:
        raise ConfigError(
            f"the Optuna storage {masked(stored)} is not used, because only the stored study names it: if it is yours, "
            "set it with its password as HARNESS_STORAGE, or name it as storage in a file of studies/."
        )
    return _with_password(given)


def _with_password(given: str) -> str:
    """Put HARNESS_STORAGE_PASSWORD into an address that the user gave, if its password is masked."""
    if not lacks_password(given):
        return given
    password = os.environ.get("HARNESS_STORAGE_PASSWORD")
    address = with_password(given, password) if password else None
    if address is None:
        raise ConfigError(f"the Optuna storage {given} lacks its password: set HARNESS_STORAGE_PASSWORD.")
    return address


def given_location(folder: StudyFolder, study: StudyConfig) -> Location:
    """Return where Optuna's copy is of a study that was read from the user's own file, whose address counts.

    Raises:
        ConfigError: its password is masked, and HARNESS_STORAGE_PASSWORD is not set.
    """
    return folder.optuna_log if study.storage is None else _with_password(study.storage)


def open_mirror(
    folder: StudyFolder,
    study: StudyConfig,
    created: Event,
    location: Location,
    say: Say,
    run_of: Callable[[str], str | None] = lambda key: None,
) -> OptunaMirror:
    """Make the thread that copies a study's search to Optuna's storage; call its `start`.

    Args:
        created: the log's first event.
        location: from `storage_location` or `given_location`.
        say, run_of: see `OptunaMirror`.
    """
    attributes = {
        ID: study_id(folder.name, created),
        "study": folder.name,
        "description": study.description,
        "objective": study.objective,
        "seed": study.seed,
        "epochs": study.epochs,
        "data_digest": created.data.fingerprint.get("data digest") if isinstance(created.data, StudyCreated) else None,
    }
    spaces = [space(study, strategy) for strategy in study.strategies]
    return OptunaMirror(location, folder.name, spaces, study.objective, say, attributes=attributes, run_of=run_of)


def mirror(
    folder: StudyFolder,
    study: StudyConfig,
    events: Sequence[Event],
    location: Location,
    ended: Sequence[tuple[str, EndedTrial]] | None = None,
) -> None:
    """Write the trials of the log that Optuna's storage lacks.

    Args:
        location: from `storage_location` or `given_location`.
        ended: the ended trials of these events, if the caller has them already.

    Raises:
        HarnessError: the storage cannot be written.
    """
    failures: list[str] = []
    copy = open_mirror(folder, study, events[0], location, failures.append)
    copy.start(StudyState.of(events, study.objective).ended if ended is None else ended)
    copy.finish()
    if failures:
        raise HarnessError(failures[0])


def bridge_of(folder: StudyFolder, study: StudyConfig) -> MlflowBridge:
    """Return the bridge to the MLflow store or server of this study."""
    return MlflowBridge(folder.name, study.description, address_of(study.tracking_uri), folder)


def _to_mlflow(folder: StudyFolder, study: StudyConfig, events: Sequence[Event]) -> str:
    bridge = bridge_of(folder, study)
    sent = bridge.catch_up(events, retry_now=True)
    bridge.log_artifacts()
    where = f"MLflow at {masked(bridge.address)}"
    back = f" Runs that had been deleted there were restored: {bridge.restored}." if bridge.restored else ""
    if not sent:
        return f"{where} had all {len(events)} events of {folder.name}.{back}"
    trials = sum(isinstance(event.data, TrialFinished) for event in events[-sent:])
    return f"{where} got {sent} of {len(events)} events of {folder.name}, among them {trials} finished trials.{back}"


def _model_missing(folder: StudyFolder, events: Sequence[Event]) -> list[str]:
    """Return a line if the recommended model is not in MLflow; the log holds no models, so sync cannot send it."""
    state = StudyState.of(events)
    wanted = state.verdicts[-1].recommended_trial if state.verdicts else None
    if wanted is None or wanted in state.models:
        return []
    return [f"The recommended model is missing: `make study NAME={folder.name}` logs it, if the images are at hand."]
