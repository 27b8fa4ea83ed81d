"""`optuna.db` against the log: every ended search trial is there once, with the value it has."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial

import optuna
from optuna.trial import FrozenTrial, TrialState

from harness.config.space import space
from harness.config.study import StudyConfig
from harness.results import database
from harness.results.home import home
from harness.results.study_state import StudyState
from harness.search.optuna_params import KEY
from harness.study.doctor_case import Case, Finding
from harness.study.doctor_replay import replay_all
from harness.study.optuna_store import open_storage
from harness.study.search import frozen
from harness.study.sync import mirror

_WHERE = "optuna.db"


def check(case: Case) -> Iterator[Finding]:
    """The file is whole, and says what the log says."""
    path = home() / "optuna.db"
    if case.history is None or case.study is None:
        return
    if not path.exists():
        if case.history.ended and not case.running:
            yield _rebuilt(case, "it is gone", aside=False)
        return
    fault = database.fault(path)
    if fault is not None:
        yield _rebuilt(case, f"it is damaged ({fault})", aside=True)
        return
    try:
        held = _held(case.folder.name)
    except Exception as error:  # SQLAlchemy's, Optuna's, JSON's: tables of another shape fail in many ways
        if database.is_busy(error):
            raise
        yield _rebuilt(case, f"Optuna cannot read it ({type(error).__name__})", aside=True)
        return
    yield from _trials(case, case.study, case.history, held)
    case.checked.append("optuna.db")


@contextlib.contextmanager
def _opened() -> Iterator[optuna.storages.RDBStorage]:
    storage = open_storage(home() / "optuna.db")
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _held(study: str) -> dict[str, list[FrozenTrial]]:
    """The trials of a study in the database, by the names of its Optuna studies."""
    with _opened() as storage:
        names = [name for name in optuna.get_all_study_names(storage) if name.rpartition("/")[0] == study]
        return {name: optuna.load_study(study_name=name, storage=storage).get_trials() for name in names}


def _trials(
    case: Case, study: StudyConfig, history: StudyState, held: dict[str, list[FrozenTrial]]
) -> Iterator[Finding]:
    for strategy in study.strategies:
        name = f"{case.folder.name}/{strategy}"
        ended = [one for of, one in history.ended if of == strategy]
        trials = held.get(name, [])
        wanted = {one.key: frozen(space(study, strategy), one, study.objective) for one in ended}
        if any(not trial.state.is_finished() for trial in trials):
            yield Finding(
                _WHERE, f"{name}: a trial is shown as running, and the study writes only trials that have ended",
                "it seems to run for ever", "--fix ends it as failed.", partial(_written, case, study),
            )  # fmt: skip
            continue
        wrong = _wrong(trials, wanted, case.running)
        if wrong is not None:
            yield Finding(
                _WHERE, f"{name}: {wrong}", "Optuna's own tools show another study than was run",
                "--fix copies what is there to a study beside it and writes this one again from the log.",
                partial(_again, case, study, history, name),
            )  # fmt: skip
            continue
        missing = [key for key in wanted if key not in {trial.user_attrs.get(KEY) for trial in trials}]
        if missing and not case.running:
            yield Finding(
                _WHERE, f"{name}: {len(missing)} of {len(ended)} ended trials are missing, {missing[0]} first",
                "Optuna's own tools show less than was run", "--fix writes them from the log, as `harness sync` does.",
                partial(_written, case, study),
            )  # fmt: skip


def _wrong(trials: list[FrozenTrial], wanted: dict[str, FrozenTrial], running: bool) -> str | None:
    """What no missing trial explains; None: nothing. The log of a study that runs was read a moment before."""
    counts = Counter(trial.user_attrs.get(KEY) for trial in trials)
    for trial in trials:
        key = trial.user_attrs.get(KEY)
        if key is None:
            continue  # of a version that wrote trials as they began, and ended them without a name
        if counts[key] > 1:
            return f"{key} is there {counts[key]} times"
        if key not in wanted and running:
            continue
        if key not in wanted:
            return f"it holds {key}, which the log does not"
        expected = wanted[key]
        if trial.params != expected.params:
            return f"{key} has other parameters than the log"
        if (trial.state, trial.values) != (expected.state, expected.values):
            return f"{key} is {_said(trial)}, and the log says {_said(expected)}"
        if trial.intermediate_values != expected.intermediate_values:
            return f"{key} has other epochs than the log"
    return None


def _said(trial: FrozenTrial) -> str:
    value = f" with {trial.value:.6g}" if trial.state == TrialState.COMPLETE and trial.value is not None else ""
    return f"{trial.state.name.lower()}{value}"


def _written(case: Case, study: StudyConfig) -> str:
    mirror(case.folder.name, study, case.reading.events)
    return f"written what the log of {case.folder.name} says"


def _again(case: Case, study: StudyConfig, history: StudyState, name: str) -> str:
    """Keep what is there under another name: it may hold a trial that the log has lost."""
    aside = f"{name} set aside {datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}"
    with _opened() as storage:
        optuna.copy_study(from_study_name=name, from_storage=storage, to_storage=storage, to_study_name=aside)
        optuna.delete_study(study_name=name, storage=storage)
    mirror(case.folder.name, study, case.reading.events)
    return f"{name} was written again; what was there is the Optuna study {aside!r} now"


def _rebuilt(case: Case, what: str, *, aside: bool) -> Finding:
    def mend() -> str:
        return replay_all(case, "optuna", home() / "optuna.db", aside=aside)

    kept = "moves it aside and " if aside else ""
    return Finding(
        _WHERE, what, "Optuna's own tools show nothing, and the study's search is not copied",
        f"--fix {kept}writes it again from the logs of all studies.", mend,
    )  # fmt: skip
