"""Check the files made from finished trials: predictions on the test split, surest mistakes and importances."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from harness.analysis.test_predictions import ScoreEvent, lost_predictions
from harness.doctor import data_files
from harness.doctor.case import Case, Finding
from harness.errors import HarnessError
from harness.results.stored_study import read_object
from harness.study.lost_files import importances_again


def check(case: Case) -> Iterator[Finding]:
    """Check that every file of predictions, the surest mistakes and the importances can be read."""
    if case.state is None:
        return
    for name, (event, fault) in lost_predictions(case.state, case.folder).items():
        yield _lost(case, name, event, fault)
    scored: list[ScoreEvent] = [*case.state.test_scores, *case.state.explored]
    named = {event.predictions for event in scored}
    case.checked.append(f"{len(named)} files of predictions")
    if case.running:
        return
    if case.folder.predictions.is_dir():
        for path in sorted(case.folder.predictions.iterdir()):
            if path.name not in named and not path.name.startswith("."):
                yield Finding(
                    f"predictions/{path.name}",
                    "a leftover: no event of the log names it",
                    "it is not used anywhere",
                    "--fix moves it to set-aside/.",
                    partial(_moved, case, path),
                )
    if case.folder.mistakes.exists() and data_files.archive_fault(case.folder.mistakes, ("images", "rows")):
        yield Finding(
            case.folder.mistakes.name,
            "it cannot be read",
            "the report does not show the surest mistakes",
            "--fix selects them again, if the images are at hand.",
            partial(case.rebuilder.mistakes, case.state),
        )
    if case.folder.importance.exists() and not _is_json(case):
        yield Finding(
            case.folder.importance.name,
            "it cannot be read",
            "the report cannot show parameter importances",
            "--fix computes it again from the trials.",
            lambda: _importances(case),
        )


def _lost(case: Case, name: str, event: ScoreEvent, fault: str) -> Finding:
    record = case.records.get(event.trial_id)

    def repair() -> str:
        if record is None:
            raise HarnessError("the log does not hold the trial whose model was scored")
        return case.rebuilder.predictions(event, record)

    return Finding(
        f"predictions/{name}",
        fault,
        "the metrics are in the log, but the report leaves out the predictions of this model",
        "--fix scores the model again, and keeps the predictions only if they give the log's metrics.",
        repair,
    )


def _moved(case: Case, path: Path) -> str:
    return f"moved to {case.set_aside(path)}"


def _is_json(case: Case) -> bool:
    try:
        read_object(case.folder.importance)
    except HarnessError:
        return False
    return True


def _importances(case: Case) -> str:
    assert case.study is not None and case.state is not None  # checked before
    importances_again(case.folder, case.study, case.state)
    return "computed again from the trials"
