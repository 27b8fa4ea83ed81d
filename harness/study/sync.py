"""`harness sync`: a study's event log replayed into `optuna.db` and MLflow, without images, models or training."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from harness.config.secrets import masked
from harness.config.space import space
from harness.config.study import StudyConfig
from harness.errors import HarnessError, ResourceError
from harness.results.event_types import StudyCreated, TrialFinished
from harness.results.events import Event, read_events
from harness.results.home import StudyFolder, home
from harness.results.study_state import StudyState
from harness.study.lock import held
from harness.study.optuna_store import OptunaMirror
from harness.tracking.mlflow_bridge import MlflowBridge
from harness.tracking.store import TrackingUnavailable, address_of

Say = Callable[[str], None]


def sync(folder: StudyFolder, say: Say) -> list[str]:
    """Bring both stores to what the log says; what was sent, in a line for each store.

    Raises:
        StudyHeldError: the study runs, and sends by itself.
        ResourceError: the MLflow server does not answer; `optuna.db` has been written by then.
        HarnessError: the log is damaged.
    """
    with held(folder):
        events = read_events(folder.events)
        if not events:
            raise HarnessError(f"the study {folder.name} has no event yet, so there is nothing to send")
        study = stored_study(folder, events)
        mirror(folder.name, study, events)
        try:
            lines = [_to_mlflow(folder, study, events)]
        except TrackingUnavailable as error:
            raise ResourceError(
                f"{str(error).partition('; the study goes on')[0]}; nothing is lost: `harness sync {folder.name}` "
                f"sends it when it answers, and `harness doctor {folder.name}` looks into a database of this machine."
            ) from None
        lines += _model_missing(folder, events)
        return [f"optuna.db holds what the log of {folder.name} says.", *lines]


def stored_study(folder: StudyFolder, events: Sequence[Event]) -> StudyConfig:
    """The resolved study: of study.json, or where that cannot be read as the log says it was created."""
    try:
        document = json.loads(folder.study_json.read_text(encoding="utf-8"))
        return StudyConfig.model_validate(document["study"])
    except (OSError, ValueError, KeyError, TypeError):
        created = events[0].data
        return StudyConfig.model_validate(created.study if isinstance(created, StudyCreated) else None)


def mirror(name: str, study: StudyConfig, events: Sequence[Event]) -> None:
    """Write what `optuna.db` lacks of the log.

    Raises:
        HarnessError: it does not take it.
    """
    failures: list[str] = []
    spaces = [space(study, strategy) for strategy in study.strategies]
    copy = OptunaMirror(home() / "optuna.db", name, spaces, study.objective, failures.append)
    copy.start(StudyState.of(events, study.objective).ended)
    copy.finish()
    if failures:
        raise HarnessError(failures[0])


def bridge_of(folder: StudyFolder, study: StudyConfig, *, thorough: bool = False) -> MlflowBridge:
    """MLflow as this study reaches it; see `MlflowBridge` for `thorough`."""
    address = address_of(folder.name, study.tracking_uri)
    return MlflowBridge(folder.name, study.description, address, folder, thorough=thorough)


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
