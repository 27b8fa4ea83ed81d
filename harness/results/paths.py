"""The paths of everything that is stored, below HARNESS_HOME (default `runs`) and HARNESS_REPORTS (`reports`).

runs/
  mlflow.db  artifacts/  cache/
  <study>/   study.json        the resolved study, as it was started
             manifest.csv      one row for each image; the rows of the test part have no label
             test_labels.csv   read by the confirmation only
             data_card.json    counts, sizes, kinds, split
             events.jsonl      the event log, from which everything else can be made or checked
             optuna.log        the search for Optuna's own tools (`optuna-dashboard runs/NAME/optuna.log`)
             checkpoints/      trainable tensors: each strategy's best trial, the confirmation models
             predictions/      <strategy>-<config key>-<seed index>.npz: probabilities on the test part
             thumbnails.npz    a few training images of each class, and their labels
             mistakes.npz      the surest mistakes of the recommended winner on the test part, as small images
             importance.json   parameter importances of each strategy
             set-aside/        files that `harness doctor` moved out of the way

A finished study may also be stored elsewhere, to be read and never run (see `harness pack`):

reports/examples/NAME/
  index.html  trials.csv  summary.json
  study/     study.json  data_card.json  importance.json  predictions/  as above
             events.jsonl.gz  manifest.csv.gz
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from harness.config.study_names import is_own, is_study_name
from harness.errors import ConfigError, ResourceError
from harness.results.inside import check_inside
from harness.safe_text import escape_name

STORED = "study"  # folder of the stored files, beside their page
MOST_JSON = 1 << 23  # bytes of a JSON text that may come from elsewhere; in memory it may take thirty times as much
_LOGS = ("events.jsonl", "events.jsonl.gz")
_OF_STUDIES = ("study.json", *_LOGS, "checkpoints")


def home() -> Path:
    """Return the folder of all state; create it if it is missing.

    Raises:
        ResourceError: it cannot be created.
    """
    path = _home()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"the folder of all state cannot be made at {escape_name(str(path))} ({os.strerror(error.errno or 0)}): "
            "choose another one with HARNESS_HOME."
        ) from error
    return path


def _home() -> Path:
    return Path(os.environ.get("HARNESS_HOME") or "runs").expanduser().resolve()


def names_in_home() -> list[str]:
    """The names of the studies in HARNESS_HOME, sorted; makes no folder.

    A study is there as long as something of it is left that cannot be made again without its log: a study whose log or
    study.json is gone is found here, so that it can be looked at and removed. Folders of the harness itself are none.
    """
    try:
        found = {path.parent.name for part in _OF_STUDIES for path in _home().glob(f"*/{part}")}
    except OSError:  # HARNESS_HOME cannot be read, or is no folder
        return []
    return sorted(name for name in found if not is_own(name))


def in_home(name: str) -> bool:
    """Whether a study of this name lies in HARNESS_HOME; makes no folder."""
    return is_study_name(name) and any((_home() / name / part).exists() for part in _OF_STUDIES)


def reports() -> Path:
    """Return the folder of all pages, without creating it."""
    return Path(os.environ.get("HARNESS_REPORTS") or "reports").expanduser().resolve()


def stored_in(path: Path) -> Path | None:
    """The folder of the stored files: this one, or `study` below it; None where neither holds a study."""
    for place in (path.expanduser(), path.expanduser() / STORED):
        try:
            if (place / "study.json").is_file() and any((place / log).is_file() for log in _LOGS):
                return place
        except (OSError, ValueError):  # no name of a file
            return None
    return None


@dataclass(frozen=True)
class StudyFolder:
    """The paths of one study's state."""

    name: str
    place: Path | None = None  # of a study that is stored outside HARNESS_HOME, which is only read

    @classmethod
    def at(cls, path: Path) -> StudyFolder:
        """The study that is stored in this folder, or in the folder `study` below it.

        Takes no link that leads out of the folder. What the files hold is not looked at, but for the study's name: see
        `packed.open_stored`.

        Raises:
            ConfigError: there is no stored study, or something that leads out of the folder.
        """
        shown, found = escape_name(str(path)), stored_in(path)
        if found is None:
            raise ConfigError(
                f"there is no study {str(path)!r} here: a path names a folder with study.json and events.jsonl or "
                f"events.jsonl.gz, or one with a folder {STORED} that holds them, as `harness pack` writes it."
            )
        root, place = path.expanduser().resolve(), found.resolve()
        if not place.is_relative_to(root):
            raise ConfigError(f"{shown} is not read: {STORED} is a link that leads out of it.")
        if place.parent == _home() and is_study_name(place.name):
            at_home = cls(place.name)
            at_home.check_inside()
            return at_home
        check_inside(root, place)
        try:
            with (place / "study.json").open("rb") as stream:
                name = json.loads(stream.read(MOST_JSON))["name"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            name = None
        if not isinstance(name, str) or not is_study_name(name):
            raise ConfigError(f"the study stored in {shown} has no name that a study may have in its study.json.")
        found_study = cls(name, place)
        if found_study.report.is_symlink():
            raise ConfigError(
                f"{shown} is not read: its page would be written through the link {found_study.report.name}."
            )
        return found_study

    @property
    def path(self) -> Path:
        return self.place or _home() / self.name

    @property
    def study_json(self) -> Path:
        return self.path / "study.json"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.csv"

    @property
    def test_labels(self) -> Path:
        return self.path / "test_labels.csv"

    @property
    def data_card(self) -> Path:
        return self.path / "data_card.json"

    @property
    def events(self) -> Path:
        """The log; the compressed one where only that is there, which can be read and not written."""
        plain, compressed = (self.path / log for log in _LOGS)
        return compressed if not plain.exists() and compressed.exists() else plain

    @property
    def optuna_log(self) -> Path:
        return self.path / "optuna.log"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions"

    @property
    def thumbnails(self) -> Path:
        return self.path / "thumbnails.npz"

    @property
    def mistakes(self) -> Path:
        return self.path / "mistakes.npz"

    @property
    def importance(self) -> Path:
        return self.path / "importance.json"

    def check_inside(self) -> None:
        """Raise ConfigError if a link leads out of the study's folder or its report's, or something there is no file.

        The report's folder counts too, because it is sent to MLflow as a whole.
        """
        for place in (self.path, self.report):
            check_inside(place.resolve(), place)

    @property
    def lock(self) -> Path:
        if self.place is not None:
            raise ConfigError(f"{self.name} lies outside HARNESS_HOME: it can be looked at, and not run or changed.")
        return home() / "locks" / f"{self.name}.lock"

    @property
    def owner(self) -> Path:
        """The file with the number of the process that holds the lock."""
        return self.lock.with_suffix(".owner")

    @property
    def set_aside(self) -> Path:
        """The folder for files that `harness doctor` moved out of the way and did not delete."""
        return self.path / "set-aside"

    @property
    def report(self) -> Path:
        """Folder of the page; of a study outside HARNESS_HOME it lies beside the stored files."""
        if self.place is None:
            return reports() / self.name
        return self.place.parent if self.place.name == STORED else self.place.with_name(f"{self.place.name}-report")

    @property
    def argument(self) -> str:
        """What names this study in a command: its name or its path, without the folders above where we are."""
        if self.place is None:
            return self.name
        path, here = self.place.parent if self.place.name == STORED else self.place, Path.cwd()
        return str(path.relative_to(here)) if path.is_relative_to(here) else f"…/{path.name}"
