"""Several studies side by side: what each one found, and what differs between studies of the same images.

Only stored files are read. Nothing is pooled over studies: each keeps the interval and the verdict of its own report.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from harness.analysis.study_data import StudyData
from harness.analysis.wording import redact
from harness.errors import ConfigError, HarnessError
from harness.results.compressed import read_arrays
from harness.results.packed import is_path, open_stored, reading
from harness.results.paths import StudyFolder, names_in_home, reports
from harness.results.study_state import StudyState

SCHEMA = 1
NAME_AT_MOST = 120  # characters in the name of a comparison's folder; file systems allow 255 bytes


@dataclass(frozen=True)
class StudySummary:
    """One study, finished or still running. No text in it contains an absolute path or a password."""

    name: str
    summary: dict[str, Any]  # schema 1: see harness.analysis.summary
    equivalence: float  # differences within ± this count as equal
    looks: int  # how often the test split was scored
    last_session: str | None  # time at which the last session began or ended, ISO 8601, UTC
    running: bool  # the last session has no end in the log: it runs, or it was killed
    file: dict[str, Any]  # the stored study file, with every default filled in
    fingerprint: dict[str, Any]
    test_rows: frozenset[int] | None  # manifest rows of the test images scored last; None if none were scored
    argument: str = ""  # what names the study in a command, if that is not its name: see StudyFolder.argument

    @property
    def objective(self) -> str:
        """The metric that the study compares, a key of METRICS."""
        return str(self.summary["objective"])

    @property
    def verdict(self) -> dict[str, Any] | None:
        """The verdict's values, see `verdict.conclude`; None if there is none yet."""
        found: dict[str, Any] | None = self.summary["verdict"]
        return found

    @property
    def outcome(self) -> str | None:
        """`fine_tuning`, `feature_extraction`, `equal` or `undecided`; None without a verdict."""
        return self.verdict["outcome"] if self.verdict else None

    @property
    def rendered(self) -> bool:
        """Whether the images are rendered, not photographs."""
        return bool(self.summary["data"]["rendered"])

    @property
    def digest(self) -> str | None:
        """Digest of the images' names, labels, groups and bytes; None if no data card is stored."""
        found: str | None = self.summary["data"]["digest"]
        return found

    @property
    def trials(self) -> int:
        """Number of search trials that have ended, of all strategies."""
        return sum(sum(side["trials"].values()) for side in self.summary["strategies"].values())

    def of(self, strategy: str, value: str) -> Any:
        """Return a value of a strategy from the summary; None if the study leaves the strategy out."""
        return self.summary["strategies"].get(strategy, {}).get(value)

    @property
    def cost_ratio(self) -> float | None:
        """Device seconds of one fine-tuning divided by those of one feature extraction; None if one is not known."""
        head, tuned = self.of("feature_extraction", "seconds_alone"), self.of("fine_tuning", "seconds_alone")
        return tuned / head if head and tuned else None


@dataclass(frozen=True)
class Difference:
    """One field that differs between studies; `values` in the order of the studies, None if not stored."""

    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class SharedData:
    """Studies whose images have the same digest, so that their results are not independent evidence."""

    names: tuple[str, ...]
    digest: str
    test_images: int | None  # number that all of them scored; None if one has scored nothing yet
    same_test: bool  # whether all scored exactly the same images
    file: list[Difference]
    environment: list[Difference]


def find_studies(names: Sequence[str]) -> list[StudyFolder]:
    """Return the folders of these studies, given by name or by the path of a stored study, in this order.

    Raises:
        ConfigError: fewer than two names, a name given twice, or no study of that name; all faults together.
    """
    known, found = names_in_home(), dict[str, StudyFolder]()
    faults = [] if len(names) > 1 else [f"two names are needed, but got {len(names)}"]
    faults += [f"{name!r} is named {names.count(name)} times" for name in dict.fromkeys(names) if names.count(name) > 1]
    for name in dict.fromkeys(names):
        try:
            if is_path(name):
                found[name] = open_stored(name)
            elif name in known:
                folder = StudyFolder(name)
                folder.check_inside()
                found[name] = folder
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
            "compare needs two or more different studies, as in `harness compare one other`; "
            f"there are: {', '.join(known) or 'none yet'}",
            faults,
        )
    return [found[name] for name in names]


def comparison_folder(names: Sequence[str]) -> Path:
    """Return the folder of this comparison's page among the reports: `compare+one+other`.

    No study's name contains a `+`, so the folder cannot be that of a study. A long name is cut and ends in a digest.
    """
    text = "+".join(("compare", *names))
    if len(text) > NAME_AT_MOST:
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        text = f"{text[: NAME_AT_MOST - 9]}~{digest}"
    return reports() / text


def read_study(folder: StudyFolder) -> StudySummary:
    """Read one study from its stored files.

    Raises:
        HarnessError: its log is damaged; the message names the study.
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


def find_shared_data(entries: Sequence[StudySummary]) -> list[SharedData]:
    """Return every group of two studies or more with the same images, in the order of their first study."""
    digests = dict.fromkeys(entry.digest for entry in entries if entry.digest)
    groups = [[entry for entry in entries if entry.digest == digest] for digest in digests]
    return [_shared(group) for group in groups if len(group) > 1]


def differing(values: Sequence[dict[str, Any]]) -> list[Difference]:
    """Return the fields that differ between these nested values; an inner field is named `search.head_lr`.

    A list is compared as a whole.
    """
    flat = [_flat(value) for value in values]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = [Difference(key, tuple(one.get(key) for one in flat)) for key in keys]
    return [row for row in rows if any(value != row.values[0] for value in row.values)]


def _shared(group: list[StudySummary]) -> SharedData:
    rows = [entry.test_rows for entry in group]
    known = [one for one in rows if one is not None]
    common = frozenset.intersection(*known) if len(known) == len(rows) else None
    return SharedData(
        names=tuple(entry.name for entry in group),
        digest=str(group[0].digest),
        test_images=None if common is None else len(common),
        same_test=common is not None and all(one == common for one in known),
        file=differing([entry.file for entry in group]),
        environment=differing([entry.summary["environment"] for entry in group]) + _resolved(group),
    )


def _resolved(group: list[StudySummary]) -> list[Difference]:
    """Return what the file leaves open and the study decided: the precision, and the weights of backbones all share."""
    found = [_flat({name: entry.fingerprint.get(name) for name in ("precision", "weights")}) for entry in group]
    return [row for row in differing(found) if all(value is not None for value in row.values)]


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dicts; the keys of inner values are joined by dots."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        flat |= _flat(item, name) if isinstance(item, dict) and item else {name: item}
    return flat


def _test_rows(state: StudyState, folder: StudyFolder) -> frozenset[int] | None:
    """Return the manifest rows of the test images that were scored last."""
    scored = state.test_scores
    path = folder.predictions / PurePosixPath(scored[-1].predictions).name if scored else None
    if path is None:
        return None
    try:
        return frozenset(read_arrays(path, ("rows",))["rows"].tolist())
    except (HarnessError, TypeError):  # the file is gone or damaged, or its rows are no list of numbers
        return None
