"""Several studies side by side: what each one found, and what differs between those that share their images.

Reads stored files only. Nothing is pooled over studies: each keeps the interval and the verdict of its own report.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from harness.analysis.study_data import StudyData
from harness.analysis.wording import redact
from harness.errors import ConfigError, HarnessError
from harness.results.packed import is_path, open_stored, reading
from harness.results.paths import StudyFolder, names_in_home, reports
from harness.results.study_state import StudyState

SCHEMA = 1
NAME_AT_MOST = 120  # characters of a comparison's folder; file systems take 255 bytes


@dataclass(frozen=True)
class StudySummary:
    """One study as far as it has come. No text in it holds a path of this machine or a password."""

    name: str
    summary: dict[str, Any]  # schema 1: see harness.analysis.summary
    equivalence: float  # differences within ± this count as equal
    looks: int  # how often the test split was scored
    last_session: str | None  # ISO 8601, UTC: when the last session began or ended
    running: bool  # the last session has no end: it works, or was killed
    file: dict[str, Any]  # the resolved study file, as stored
    fingerprint: dict[str, Any]
    test_rows: frozenset[int] | None  # rows of the images scored last; None where nothing was scored
    argument: str = ""  # what names it in a command, where that is not its name: see StudyFolder.argument

    @property
    def objective(self) -> str:
        return str(self.summary["objective"])

    @property
    def verdict(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.summary["verdict"]
        return found

    @property
    def outcome(self) -> str | None:
        """fine_tuning, feature_extraction, equal or undecided; None without a verdict."""
        return self.verdict["outcome"] if self.verdict else None

    @property
    def rendered(self) -> bool:
        return bool(self.summary["data"]["rendered"])

    @property
    def digest(self) -> str | None:
        """Of names, labels, groups and bytes of the images; None where no data card is stored."""
        found: str | None = self.summary["data"]["digest"]
        return found

    @property
    def trials(self) -> int:
        """Search trials that have ended, of all strategies."""
        return sum(sum(side["trials"].values()) for side in self.summary["strategies"].values())

    def of(self, strategy: str, value: str) -> Any:
        """A value of a strategy in the summary; None where the study leaves the strategy out."""
        return self.summary["strategies"].get(strategy, {}).get(value)

    @property
    def cost_ratio(self) -> float | None:
        """Device seconds of one fine-tuning over those of one feature extraction; None where one is not known."""
        head, tuned = self.of("feature_extraction", "seconds_alone"), self.of("fine_tuning", "seconds_alone")
        return tuned / head if head and tuned else None


@dataclass(frozen=True)
class Difference:
    """One field that is not the same in all studies; `values` in their order, None where it is not stored."""

    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Shared:
    """Studies whose images have one digest: they are no independent evidence of one another."""

    names: tuple[str, ...]
    digest: str
    test_images: int | None  # scored by all of them; None where one has scored nothing yet
    same_test: bool  # all scored exactly these images
    file: list[Difference]
    environment: list[Difference]


def chosen(names: Sequence[str]) -> list[StudyFolder]:
    """The studies of these names or, where they are stored elsewhere, of these paths; in this order.

    Raises:
        ConfigError: fewer than two, one of them twice, or one that is not here; all faults together.
    """
    known, found = names_in_home(), dict[str, StudyFolder]()
    faults = [] if len(names) > 1 else [f"two names are needed, but got {len(names)}"]
    faults += [f"{name!r} is named {names.count(name)} times" for name in dict.fromkeys(names) if names.count(name) > 1]
    for name in dict.fromkeys(names):
        try:
            if is_path(name):
                found[name] = open_stored(name)
            elif name in known:
                found[name] = StudyFolder(name)
            else:
                faults.append(f"there is no study {name!r} here")
        except ConfigError as error:
            faults.append(str(error))
    called = [folder.name for folder in found.values()]
    faults += [
        f"{called.count(name)} of these studies are called {name}, and the page tells studies apart by their names"
        for name in dict.fromkeys(called)
        if called.count(name) > 1
    ]
    if faults:
        raise ConfigError(
            "compare takes two or more different studies, as in `harness compare one other`; "
            f"there are: {', '.join(known) or 'none yet'}",
            faults,
        )
    return [found[name] for name in names]


def place(names: Sequence[str]) -> Path:
    """The folder of this comparison's page: `compare+one+other` among the reports.

    No study's name holds a `+`, so no study's report can lie there. A long list is cut, and ends in its digest.
    """
    text = "+".join(("compare", *names))
    if len(text) > NAME_AT_MOST:
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        text = f"{text[: NAME_AT_MOST - 9]}~{digest}"
    return reports() / text


def read(folder: StudyFolder) -> StudySummary:
    """One study, from its stored files.

    Raises:
        HarnessError: its log is damaged; says which study's.
    """
    try:
        with reading(folder):
            return _summary(folder, StudyData.read(folder))
    except HarnessError as error:
        raise HarnessError(f"study {folder.name}: {error}") from error


def _summary(folder: StudyFolder, data: StudyData) -> StudySummary:
    return StudySummary(
        name=folder.name,
        argument=redact(folder.argument),
        summary=data.summary,
        equivalence=data.study.confirmation.equivalence,
        looks=data.looks,
        last_session=data.state.session_at,
        running=data.running,
        file=data.study_json,
        fingerprint=data.fingerprint,
        test_rows=_test_rows(data.state, folder),
    )


def shared(entries: Sequence[StudySummary]) -> list[Shared]:
    """Every group of two studies or more with the same images, in the order of their first study."""
    digests = dict.fromkeys(entry.digest for entry in entries if entry.digest)
    groups = [[entry for entry in entries if entry.digest == digest] for digest in digests]
    return [_shared(group) for group in groups if len(group) > 1]


def differing(values: Sequence[dict[str, Any]]) -> list[Difference]:
    """The fields that are not the same in all of these nested values, `search.head_lr` for an inner one.

    A list is compared as a whole.
    """
    flat = [_flat(value) for value in values]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = [Difference(key, tuple(one.get(key) for one in flat)) for key in keys]
    return [row for row in rows if any(value != row.values[0] for value in row.values)]


def _shared(group: list[StudySummary]) -> Shared:
    rows = [entry.test_rows for entry in group]
    known = [one for one in rows if one is not None]
    common = frozenset.intersection(*known) if len(known) == len(rows) else None
    return Shared(
        names=tuple(entry.name for entry in group),
        digest=str(group[0].digest),
        test_images=None if common is None else len(common),
        same_test=common is not None and all(one == common for one in known),
        file=differing([entry.file for entry in group]),
        environment=differing([entry.summary["environment"] for entry in group]) + _resolved(group),
    )


def _resolved(group: list[StudySummary]) -> list[Difference]:
    """What the file leaves open and the study settled: arithmetic, and the weights of each backbone that all have."""
    found = [_flat({name: entry.fingerprint.get(name) for name in ("precision", "weights")}) for entry in group]
    return [row for row in differing(found) if all(value is not None for value in row.values)]


def _flat(value: dict[str, Any], where: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{where}.{key}" if where else str(key)
        flat |= _flat(item, name) if isinstance(item, dict) and item else {name: item}
    return flat


def _test_rows(state: StudyState, folder: StudyFolder) -> frozenset[int] | None:
    scored = state.test_scores
    path = folder.predictions / PurePosixPath(scored[-1].predictions).name if scored else None
    if path is None or not path.exists():
        return None
    with np.load(path, allow_pickle=False) as stored:
        return frozenset(stored["rows"].tolist())
