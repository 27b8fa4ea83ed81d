"""Check that the checkpoints of the log's trials exist and are sound, and find files that are not needed."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

from harness.doctor.case import Case, Finding
from harness.errors import ContractError, ResourceError
from harness.results.compressed import is_stored
from harness.results.event_types import TrialInterrupted
from harness.results.events import of_type
from harness.results.records import TrialRecord
from harness.results.study_state import StudyState
from harness.results.trial_id import file_stem
from harness.training.checkpoint import load_best
from harness.training.contract import check_classes


def check(case: Case) -> Iterator[Finding]:
    """Check every checkpoint that the study keeps, then look for leftovers in the same folder."""
    if case.state is None:
        return
    wanted = kept(case.state)
    for name, record in wanted.items():
        if case.running and record.kind == "search":
            continue  # a better trial may just have replaced it
        fault = _fault(case.folder.checkpoints / name, case.classes)
        if fault is not None:
            yield _lost(case, name, record, fault)
    case.checked.append(f"{len(wanted)} checkpoints")
    if not case.running and case.folder.checkpoints.is_dir():
        yield from _leftovers(case, wanted)


def kept(state: StudyState) -> dict[str, TrialRecord]:
    """Return the checkpoints that a study keeps, by file name: each strategy's best trial, and all later trials."""
    strategies = {record.strategy for record in state.finished}
    best = [best for strategy in sorted(strategies) if (best := state.best(strategy)) is not None]
    records = [*best, *(record for record in state.later.values() if record.state == "complete")]
    return {record.checkpoint: record for record in records if record.checkpoint is not None}


def _fault(path: Path, classes: tuple[str, ...] | None) -> str | None:
    """Return what is wrong with a checkpoint; None if nothing is. Every byte is read."""
    if not path.exists():
        return "it is gone"
    try:
        trained = load_best(path)[1]
        if classes is not None:
            check_classes(trained, classes)
    except ResourceError:
        return "it cannot be read, or its checksum does not fit"
    except ContractError as error:
        return f"it is a model of other classes ({error})"
    return None


def _lost(case: Case, name: str, record: TrialRecord, fault: str) -> Finding:
    scored = "its scores are in the log, but the model cannot be scored or exported again"
    return Finding(
        f"checkpoints/{name}",
        f"the model of {record.trial_id}: {fault}",
        scored if record.kind != "search" else "the best model of its strategy's search is lost",
        "--fix trains it again with its seed, and keeps it if the score is the same, as a study that needs it does.",
        lambda: case.rebuilder.checkpoint(record),
    )


def _leftovers(case: Case, wanted: dict[str, TrialRecord]) -> Iterator[Finding]:
    """Find files that no trial needs: of a trial that is no longer the best, of an ended trial, or unknown files."""
    by_stem = {file_stem(trial_id): record for trial_id, record in case.records.items()}
    state = StudyState.of(case.reading.events)
    in_flight = {file_stem(trial.job.trial_id) for trial in state.in_flight.values()}
    in_flight |= _to_run_again(case)
    for path in sorted(case.folder.checkpoints.iterdir()):
        record = by_stem.get(path.name.removesuffix(path.suffix))
        if path.name in wanted or path.name.startswith(".") or not path.is_file():
            continue  # `leftovers` finds half-written files
        if path.suffix == ".resume" and path.stem in in_flight and record is None:
            if not _readable(path):
                yield _unneeded(case, path, "a file to resume a trial from, which cannot be read", removed=True)
        elif record is not None:
            yield _unneeded(case, path, f"{record.trial_id} has ended, and its file is no longer needed", removed=True)
        else:
            yield _unneeded(case, path, "no finished trial of the log names it", removed=False)


def _to_run_again(case: Case) -> set[str]:
    """Return the file names of trials that were interrupted and have not ended since."""
    again = {cut.trial_id for cut in of_type(case.reading.events, TrialInterrupted)}
    return {file_stem(trial_id) for trial_id in again - set(case.records)}


def _readable(path: Path) -> bool:
    """Whether a file in torch's format, which is a zip archive, has all its bytes."""
    if not is_stored(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # see data_files.archive_fault
        return False


def _unneeded(case: Case, path: Path, what: str, *, removed: bool) -> Finding:
    def repair() -> str:
        if not removed:
            return f"moved to {case.set_aside(path)}"
        path.unlink()
        return "removed"

    size = path.stat().st_size / 1e6
    where = f"checkpoints/{path.name}"
    out = "--fix removes it." if removed else "--fix moves it to set-aside/."
    return Finding(where, f"a leftover: {what}", f"it takes {size:.1f} MB", out, repair)
