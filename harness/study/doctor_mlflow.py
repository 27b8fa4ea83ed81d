"""MLflow against the log: every trial is there once, with its values once, and in the state it ended in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.config.secrets import masked
from harness.config.study import StudyConfig
from harness.results import database
from harness.study.doctor_case import Case, Finding
from harness.study.doctor_replay import replay_all
from harness.study.sync import bridge_of
from harness.tracking import audit
from harness.tracking.mlflow_store import close_store, restore_experiment
from harness.tracking.store import TrackingUnavailable, address_of, is_remote, sqlite_path

_SHOWN = 3  # differences that are told; the others are counted


def check(case: Case) -> Iterator[Finding]:
    """The database is whole where it lies on this machine, and says what the log says."""
    study = case.study
    if case.history is None or study is None:
        return
    address = address_of(case.folder.name, study.tracking_uri)
    where = f"MLflow at {masked(address)}" if is_remote(address) else "mlflow.db"
    path = sqlite_path(address)
    if path is not None and not path.exists():
        if not case.running:
            yield _rebuilt(case, where, address, "it is gone", aside=False)
        return
    fault = database.fault(path) if path is not None else None
    if fault is not None:
        yield _rebuilt(case, where, address, f"it is damaged ({fault})", aside=True)
        return
    try:
        faults = audit.audit(case.folder.name, address, case.reading.events, running=case.running)
        models = audit.missing_models(address, case.reading.events)
    except TrackingUnavailable as error:
        if database.is_busy(error):
            raise
        if path is not None:
            yield _rebuilt(case, where, address, f"MLflow cannot read it ({error})", aside=True)
        else:
            yield Finding(
                where, "it does not answer", "what it holds is not known",
                f"`harness sync {case.folder.name}` sends what is missing when it answers.",
            )  # fmt: skip
        return
    case.checked.append(where)
    if faults:
        yield _mended(case, study, where, faults)
    for uri in models:
        yield Finding(
            where, f"the model {uri} is gone", "what the report recommends cannot be loaded from MLflow",
            f"`make study NAME={case.folder.name}` logs it again, with the images at hand.",
        )  # fmt: skip


def _mended(case: Case, study: StudyConfig, where: str, faults: Sequence[audit.Fault]) -> Finding:
    address = address_of(case.folder.name, study.tracking_uri)

    def mend() -> str:
        if any(fault.deleted for fault in faults):
            restore_experiment(address, case.folder.name)
        aside = list(dict.fromkeys(run for fault in faults for run in fault.runs))
        audit.set_aside(address, aside)
        told = _replay(case, study)
        return told + (f"; {len(aside)} runs lie among MLflow's deleted ones now" if aside else "")

    more = f" (and {len(faults) - _SHOWN} more)" if len(faults) > _SHOWN else ""
    return Finding(
        where, ", ".join(fault.what for fault in faults[:_SHOWN]) + more, "its pages show something else than was run",
        "--fix compares every run with the log and sends what is missing; runs that cannot be mended are set aside.",
        mend,
    )  # fmt: skip


def _replay(case: Case, study: StudyConfig) -> str:
    bridge = bridge_of(case.folder, study, thorough=True)
    bridge.catch_up(case.reading.events, patient=True)
    bridge.log_artifacts()
    return f"every run of {case.folder.name} was compared with the log, and what was missing sent"


def _rebuilt(case: Case, where: str, address: str, what: str, *, aside: bool) -> Finding:
    path = sqlite_path(address)
    assert path is not None  # a file of this machine

    def mend() -> str:
        close_store(address)
        return replay_all(case, "mlflow", path, aside=aside)

    kept = "moves it aside and " if aside else ""
    return Finding(
        where, what, "no run is shown, and none is taken",
        f"--fix {kept}writes it again from the logs of all studies; `make study` logs the models again.", mend,
    )  # fmt: skip
