"""`harness doctor`: check a study's files, stores and caches, and repair them on request.

Files must exist, be readable and fit their checksums; stores must hold the trials of the event log. All else is
compared with the log. A repair sends the log to a store again, computes a file again, or moves away a file that is not
needed. No repair removes a finished trial. A fault whose cause is not certain is reported and left as it is. Each other
file of this folder holds the checks of one part of a study.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from harness.atomic import disk_errors
from harness.doctor import cache, checkpoints, data_files, leftovers, log, mlflow, optuna, predictions
from harness.doctor.case import Case, Finding, run_check
from harness.errors import StudyHeldError
from harness.results.event_types import TrialFinished
from harness.results.paths import StudyFolder
from harness.safe_text import escape_name
from harness.study import lock

ROUNDS = 5  # of repairs and new checks, because a repair may uncover another fault
CHECKS = (
    ("events.jsonl", log.events),
    ("study.json", log.study_json),
    ("the data's files", data_files.check),
    ("checkpoints", checkpoints.check),
    ("predictions", predictions.check),
    ("Optuna's storage", optuna.check),
    ("MLflow", mlflow.check),
    ("leftovers", leftovers.check),
    ("cache", cache.check),
)


@dataclass
class Diagnosis:
    """The result for one study: what was checked, what was repaired, and what is still wrong."""

    name: str
    running: bool = False
    trials: int = 0  # finished ones that can be read
    checked: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # finding -> why it could not be repaired
    left: list[Finding] = field(default_factory=list)

    @property
    def well(self) -> bool:
        """Whether nothing is wrong any more."""
        return not self.left

    def lines(self) -> Iterator[str]:
        """Yield the lines for the user: repairs, findings, then a summary; control characters are escaped."""
        yield from (escape_name(f"Repaired  {text}") for text in self.repaired)
        for finding in self.left:
            why = self.failed.get(str(finding))
            yield escape_name(f"Wrong     {finding}" + (f" Not repaired: {why}." if why else ""))
        if self.running:
            yield f"{self.name} is running, so files that it may still write were not checked."
        if self.checked:
            yield f"Checked {', '.join(self.checked)}."
        state = "all is well" if self.well else f"{len(self.left)} thing{'s' * (len(self.left) > 1)} wrong"
        yield f"{self.name}: {state}, {self.trials} finished trials."


def examine(folder: StudyFolder, *, fix: bool) -> Diagnosis:
    """Check a study, and repair what can be repaired if `fix` is set.

    Raises:
        StudyHeldError: `fix` is set and the study is running.
        ConfigError: a link leads out of the study's folder; a repair would follow it.
    """
    with disk_errors(folder.path), _locked(folder, fix) as running:
        folder.check_inside()
        diagnosis = Diagnosis(folder.name)
        found = _check_all(folder, running, diagnosis)
        for _ in range(ROUNDS if fix else 0):
            todo = [f for f in found if f.repair is not None and str(f) not in diagnosis.failed]
            if not todo:
                break
            for finding in [f for f in todo if f.first] or todo:
                _repair(finding, diagnosis)
            found = _check_all(folder, running, diagnosis)
        diagnosis.left = found
        return diagnosis


@contextmanager
def _locked(folder: StudyFolder, fix: bool) -> Iterator[bool]:
    """Hold the study's lock, and yield whether another process holds it, which is allowed without `fix`."""
    with ExitStack() as stack:
        running = False
        try:
            stack.enter_context(lock.held(folder, as_owner=False))
        except StudyHeldError:
            if fix:
                raise
            running = True
        yield running


def _check_all(folder: StudyFolder, running: bool, diagnosis: Diagnosis) -> list[Finding]:
    case = Case(folder, running)
    found = [finding for where, check in CHECKS for finding in run_check(check, case, where)]
    diagnosis.running, diagnosis.checked = running, case.checked
    diagnosis.trials = sum(isinstance(event.data, TrialFinished) for event in case.reading.events)
    return found


def _repair(finding: Finding, diagnosis: Diagnosis) -> None:
    assert finding.repair is not None  # only such findings are passed
    try:
        diagnosis.repaired.append(f"{finding.where}: {finding.repair()}")
    except Exception as error:  # a repair that fails must not prevent the others
        diagnosis.failed[str(finding)] = " ".join(str(error).split()).rstrip(".") or type(error).__name__
