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
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path


def home() -> Path:
    """Return the folder of all state; create it if it is missing."""
    path = Path(os.environ.get("HARNESS_HOME") or "runs").expanduser().resolve()
    path.mkdir(parents=True, exist_ok=True)
    return path


def reports() -> Path:
    """Return the folder of all pages, without creating it."""
    return Path(os.environ.get("HARNESS_REPORTS") or "reports").expanduser().resolve()


@dataclass(frozen=True)
class StudyFolder:
    """The paths of one study's state."""

    name: str

    @property
    def path(self) -> Path:
        return home() / self.name

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
        return self.path / "events.jsonl"

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

    def tracking_uri(self) -> str | None:
        """Return the study's `tracking_uri` without its password; None if the study has none."""
        return self._stored("tracking_uri")

    def storage(self) -> str | None:
        """Return the study's `storage` without its password; None if the study has none."""
        return self._stored("storage")

    def _stored(self, key: str) -> str | None:
        address = json.loads(self.study_json.read_text(encoding="utf-8"))["study"].get(key)
        return str(address) if address else None

    @property
    def lock(self) -> Path:
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
        return reports() / self.name
