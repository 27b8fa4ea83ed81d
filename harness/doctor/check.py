"""`harness doctor`: a study's stores, files and caches checked, and mended where asked.

Files have to be there, readable and as their checksums say; stores have to hold the trials of the event log. The log is
the truth. A mend makes other stores follow it, writes again what can be computed again, or moves out of the way what
nobody needs; none removes a finished trial, and what cannot be told for certain is said and left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from harness.doctor import cache, checkpoints, data_files, leftovers, log, mlflow, optuna, predictions
from harness.doctor.case import Case, Finding, looked
from harness.errors import StudyHeldError
from harness.results.event_types import TrialFinished
from harness.results.paths import StudyFolder
from harness.safe_text import escape_name
from harness.study import lock

ROUNDS = 5  # of mending and looking again: a mend may bring to light what was hidden behind it
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
    """What was found, what was done about it, and what is left."""

    name: str
    running: bool = False
    trials: int = 0  # finished ones that can be read
    checked: list[str] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # finding -> why it could not be mended
    left: list[Finding] = field(default_factory=list)

    @property
    def well(self) -> bool:
        return not self.left

    def lines(self) -> Iterator[str]:
        """For a person: one a finding or a mend, then the sum; no control character is among them."""
        yield from (escape_name(f"Mended  {text}") for text in self.mended)
        for finding in self.left:
            why = self.failed.get(str(finding))
            yield escape_name(f"Wrong   {finding}" + (f" Not mended: {why}." if why else ""))
        if self.running:
            yield f"{self.name} runs now: checked as it stands; what may be on its way was not asked for."
        if self.checked:
            yield f"Looked at {', '.join(self.checked)}."
        state = "all is well" if self.well else f"{len(self.left)} thing{'s' * (len(self.left) > 1)} wrong"
        yield f"{self.name}: {state}, {self.trials} finished trials."


def examine(folder: StudyFolder, *, fix: bool, say: Callable[[str], None]) -> Diagnosis:
    """Check a study, and mend what can be mended where `fix` is set.

    Raises:
        StudyHeldError: it is to be mended while it runs.
    """
    with _quiet(folder, fix) as running:
        diagnosis = Diagnosis(folder.name)
        found = _look(folder, running, say, diagnosis)
        for _ in range(ROUNDS if fix else 0):
            todo = [f for f in found if f.mend is not None and str(f) not in diagnosis.failed]
            if not todo:
                break
            for finding in [f for f in todo if f.first] or todo:
                _mend(finding, diagnosis)
            found = _look(folder, running, say, diagnosis)
        diagnosis.left = found
        return diagnosis


@contextmanager
def _quiet(folder: StudyFolder, fix: bool) -> Iterator[bool]:
    """Keep the study from starting meanwhile; whether it runs already, which a check alone allows."""
    with ExitStack() as stack:
        running = False
        try:
            stack.enter_context(lock.held(folder, sign=False))
        except StudyHeldError:
            if fix:
                raise
            running = True
        yield running


def _look(folder: StudyFolder, running: bool, say: Callable[[str], None], diagnosis: Diagnosis) -> list[Finding]:
    case = Case(folder, running, say)
    found = [finding for where, check in CHECKS for finding in looked(check, case, where)]
    diagnosis.running, diagnosis.checked = running, case.checked
    diagnosis.trials = sum(isinstance(event.data, TrialFinished) for event in case.reading.events)
    return found


def _mend(finding: Finding, diagnosis: Diagnosis) -> None:
    assert finding.mend is not None  # chosen for it
    try:
        diagnosis.mended.append(f"{finding.where}: {finding.mend()}")
    except Exception as error:  # whatever stands in the way of one mend must not hinder the others
        diagnosis.failed[str(finding)] = " ".join(str(error).split()).rstrip(".") or type(error).__name__
