"""Optuna's copy of the search: it can be read, and every ended trial of the log is there once.

The copy is a projection, so every mend is the same: what is missing is written, and a copy that cannot be read or holds
something else is made again from the log.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.doctor.case import Case, Finding
from harness.search.optuna_journal import fault, keys
from harness.study.sync import mirror, name_of, storage_of


def check(case: Case) -> Iterator[Finding]:
    """The storage can be read, and holds the ended trials of the log, each once."""
    study, history = case.study, case.history
    if study is None or history is None or (case.running and not history.ended):
        return
    place = storage_of(case.folder, study)
    wanted: dict[str, list[str]] = {str(strategy): [] for strategy in study.strategies} | keys(history.ended)
    try:
        wrong = fault(place, case.folder.name, wanted, running=case.running)
    except FileNotFoundError:
        wrong = "it is gone" if history.ended else None
    except Exception as error:  # JSON's, Optuna's, SQLAlchemy's: what is damaged or out of reach fails in many ways
        wrong = f"it cannot be read ({type(error).__name__})"
    if wrong is None:
        case.checked.append(name_of(place))
        return

    def mend() -> str:
        mirror(case.folder, study, case.reading.events)
        return f"written what the log of {case.folder.name} says"

    yield Finding(
        name_of(place),
        wrong,
        "Optuna's own tools show another search than was run",
        "--fix writes it from the log, as `harness sync` does.",
        mend,
    )
