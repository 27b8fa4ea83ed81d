"""What the doctor is told of a study before it looks into its stores, and how it says what it found."""

from __future__ import annotations

import json
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
from harness.results.study_state import StudyState


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: in one line where, what, with which consequence, and the way out of it."""

    where: str
    what: str
    consequence: str
    way_out: str
    mend: Callable[[], str] | None = None  # mends it and says what it did; raises where it cannot
    first: bool = False  # what else is wrong can be told only when this is mended

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.consequence}. {self.way_out}"


Check = Callable[["Case"], Iterable[Finding]]


@dataclass
class Case:
    """A study as it lies on the disk: whatever of it can be read.

    `running` is true while another process works on it: what is missing may then be on its way.
    """

    folder: StudyFolder
    running: bool
    say: Callable[[str], None]  # for mends that take their time
    checked: list[str] = field(default_factory=list)  # what was looked at, in a few words each
    classes: tuple[str, ...] | None = None  # once the data's files were looked at, and fit the data's digest

    @cached_property
    def reading(self) -> Reading:
        return scan_log(self.folder.events)

    @cached_property
    def document(self) -> dict[str, Any]:
        """What study.json says; {} where it cannot be read."""
        try:
            found = json.loads(self.folder.study_json.read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
        except (OSError, ValueError):
            return {}

    @cached_property
    def created(self) -> StudyCreated | None:
        """What the log says of the study's creation; None if that cannot be read."""
        return next(iter(of_type(self.reading.events, StudyCreated)), None)

    @cached_property
    def study(self) -> StudyConfig | None:
        """The resolved study: of study.json, else of the log."""
        for values in (self.document.get("study"), self.created.study if self.created else None):
            try:
                return StudyConfig.model_validate(values)
            except ValueError:  # pydantic's own is one
                continue
        return None

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What decides the study's numbers: of the log, which has checksums, else of study.json."""
        found = (self.created.fingerprint if self.created else None) or self.document.get("fingerprint")
        return found if isinstance(found, dict) else {}

    @cached_property
    def records(self) -> dict[str, TrialRecord]:
        """Every finished trial that can be read, by id; where one was written twice the later counts."""
        return {ended.record.trial_id: ended.record for ended in of_type(self.reading.events, TrialFinished)}

    @cached_property
    def history(self) -> StudyState | None:
        """The log replayed; None where it is damaged or there is none, since then it is no truth to compare with."""
        if self.study is None or not self.reading.events or not self.reading.whole:
            return None
        return StudyState.of(self.reading.events, self.study.objective)

    @cached_property
    def rebuilder(self) -> Rebuilder:
        """The study's images, for what they can give again."""
        if self.study is None:
            raise HarnessError("the study itself cannot be read")
        return Rebuilder(self.folder, self.study, self.fingerprint)

    def set_aside(self, path: Path) -> str:
        """Move a file of the study out of the way; where it lies now. Nothing is thrown away."""
        self.folder.set_aside.mkdir(exist_ok=True)
        target = self.folder.set_aside / path.name
        number = 1
        while target.exists():
            number += 1
            target = self.folder.set_aside / f"{path.name}.{number}"
        path.rename(target)
        return f"{self.folder.set_aside.name}/{target.name}"


def looked(check: Check, case: Case, where: str) -> Iterator[Finding]:
    """The findings of a check. What it stumbles over is a finding too: a doctor does not die of a patient."""
    try:
        yield from check(case)
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        yield Finding(
            where,
            f"cannot be checked ({text})",
            "whether all is well there is not known",
            "Mend what else is named here first; if it stays, please report it with this line.",
        )
