"""The input and the output of every check: a study as it is on the disk (Case), and what is wrong (Finding)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.config.study import StudyConfig
from harness.doctor.rebuild import Rebuilder
from harness.errors import HarnessError
from harness.results.event_types import StudyCreated, TrialFinished
from harness.results.events import Reading, of_type, scan_log
from harness.results.paths import StudyFolder
from harness.results.records import TrialRecord
from harness.results.stored_study import object_or_empty
from harness.results.study_state import StudyState


@dataclass(frozen=True)
class Finding:
    """Something that is wrong. Its text names the place, the fault, the consequence and the way out, in one line."""

    where: str
    what: str
    consequence: str
    way_out: str
    repair: Callable[[], str] | None = None  # repairs it and returns what was done; raises if that is impossible
    first: bool = False  # whether the other checks make sense only after this repair

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.consequence}. {self.way_out}"


Check = Callable[["Case"], Iterable[Finding]]


@dataclass
class Case:
    """A study as it is on the disk: everything of it that can be read.

    `running` is true while another process works on the study. A file that is missing may then still be written.
    """

    folder: StudyFolder
    running: bool
    checked: list[str] = field(default_factory=list)  # what was checked, in a few words each
    classes: tuple[str, ...] | None = None  # set after the data's files were checked and fit the data's digest

    @cached_property
    def reading(self) -> Reading:
        return scan_log(self.folder.events)

    @cached_property
    def document(self) -> dict[str, Any]:
        """The content of study.json; {} if it cannot be read."""
        return object_or_empty(self.folder.study_json)

    @cached_property
    def created(self) -> StudyCreated | None:
        """The log's event of the study's creation; None if it cannot be read."""
        return next(iter(of_type(self.reading.events, StudyCreated)), None)

    @cached_property
    def study(self) -> StudyConfig | None:
        """The resolved study from study.json, otherwise from the log; None if both cannot be read."""
        for values in (self.document.get("study"), self.created.study if self.created else None):
            try:
                return StudyConfig.model_validate(values)
            except ValueError:  # pydantic's error is one too
                continue
        return None

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """The study's fingerprint from the log, which has checksums, otherwise from study.json."""
        found = (self.created.fingerprint if self.created else None) or self.document.get("fingerprint")
        return found if isinstance(found, dict) else {}

    @cached_property
    def records(self) -> dict[str, TrialRecord]:
        """Every finished trial that can be read, by id. If a trial was written twice, the later record counts."""
        return {ended.record.trial_id: ended.record for ended in of_type(self.reading.events, TrialFinished)}

    @cached_property
    def state(self) -> StudyState | None:
        """The state after all events; None if the log is damaged or missing, so that no comparison is possible."""
        if self.study is None or not self.reading.events or not self.reading.whole:
            return None
        return StudyState.of(self.reading.events, self.study.objective)

    @cached_property
    def rebuilder(self) -> Rebuilder:
        """Makes files again from the study's images."""
        if self.study is None:
            raise HarnessError("the study itself cannot be read")
        return Rebuilder(self.folder, self.study, self.fingerprint)

    def set_aside(self, path: Path) -> str:
        """Move a file of the study to `set-aside/` without deleting it, and return its new path."""
        self.folder.set_aside.mkdir(exist_ok=True)
        target = self.folder.set_aside / path.name
        number = 1
        while target.exists():
            number += 1
            target = self.folder.set_aside / f"{path.name}.{number}"
        path.rename(target)
        return f"{self.folder.set_aside.name}/{target.name}"


def run_check(check: Check, case: Case, where: str) -> Iterator[Finding]:
    """Yield the findings of a check. An error in the check becomes a finding, so that the other checks still run."""
    try:
        yield from check(case)
    except HarnessError as error:  # it says itself what helps
        yield Finding(where, "cannot be checked", "it is not known whether all is well there", _sentence(str(error)))
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        yield Finding(
            where,
            f"cannot be checked ({text})",
            "it is not known whether all is well there",
            "Repair the other findings first; if this one stays, please report it with this line.",
        )


def _sentence(text: str) -> str:
    """Return a message of an error in one line, as a sentence of its own."""
    line = " ".join(text.split()).rstrip(".")
    return f"{line[:1].upper()}{line[1:]}."
