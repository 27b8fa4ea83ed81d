"""Check Optuna's copy of the search: it can be read, and it holds each ended trial of the log once.

The copy is made from the log, so every fault is repaired in the same way: missing trials are written, and a copy that
cannot be read or holds other trials is made again.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.doctor.case import Case, Finding
from harness.search.optuna_journal import describe_location, find_fault, keys_by_strategy
from harness.study.sync import mirror, storage_location


def check(case: Case) -> Iterator[Finding]:
    """Check that the storage can be read and holds each ended trial of the log once."""
    study, state = case.study, case.state
    if study is None or state is None or (case.running and not state.ended):
        return
    location = storage_location(case.folder, study)
    name = describe_location(location)
    wanted: dict[str, list[str]] = {str(strategy): [] for strategy in study.strategies} | keys_by_strategy(state.ended)
    try:
        wrong = find_fault(location, case.folder.name, wanted, running=case.running)
    except FileNotFoundError:
        wrong = "it is gone" if state.ended else None
    except Exception as error:  # of JSON, Optuna or SQLAlchemy: a damaged or unreachable storage fails in many ways
        wrong = f"it cannot be read ({type(error).__name__})"
    if wrong is None:
        case.checked.append(name)
        return

    def repair() -> str:
        mirror(case.folder, study, case.reading.events, location)
        return f"written again from the log of {case.folder.name}"

    yield Finding(
        name,
        wrong,
        "Optuna's own tools show another search than was run",
        "--fix writes it from the log, as `harness sync` does.",
        repair,
    )
