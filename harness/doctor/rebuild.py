"""What the images can give again: the files of the data, the model of a finished trial, its predictions.

Nothing here trains a new trial or looks at the test split anew: what comes out is what the log says, or is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch

from harness.analysis.test_predictions import scored_predictions
from harness.config.load import LoadedStudy
from harness.config.study import StudyConfig
from harness.config.trial import Shift
from harness.errors import ConfigError, HarnessError
from harness.results import metrics
from harness.results.event_types import Explored, TestScored
from harness.results.paths import StudyFolder
from harness.results.records import TrialRecord
from harness.results.study_state import StudyState
from harness.study import confirm, mistakes
from harness.study.environment import resolve_devices
from harness.study.executors.base import Scored, ScoreTask
from harness.study.executors.run_task import run_task, settle, train_again
from harness.study.identity import differences
from harness.study.prepare import Prepared, prepare
from harness.study.study_files import write_data
from harness.training.frozen_features.worker_cache import WorkerCache

SAME = 1e-6  # how far a metric of answers that are given again may lie from the log's


@dataclass
class Rebuilder:
    """A study's images, read again when something needs them.

    Every method raises a HarnessError where the images, the device or the numbers are not those of the study.
    """

    folder: StudyFolder
    study: StudyConfig
    fingerprint: dict[str, Any]  # of the log

    @cached_property
    def _prepared(self) -> Prepared:
        loaded = LoadedStudy(self.folder.name, self.study, False, Path(f"{self.folder.name}.yaml"))
        devices = resolve_devices(self.study.device, self.study.workers)
        made = prepare(loaded, devices, lambda what, done, of: None)
        if made.dataset.digest != self.fingerprint.get("data digest"):
            raise ConfigError("the images are not those the study was started with")
        return made

    @cached_property
    def _ready(self) -> tuple[Prepared, torch.device, WorkerCache]:
        """All that training needs, where it would give the same numbers."""
        made = self._prepared
        if changed := differences(self.fingerprint, made.fingerprint):
            raise ConfigError(f"here it would give other numbers ({changed[0]})")
        settle(made.context)
        device = torch.device(resolve_devices(self.study.device, self.study.workers)[0])
        return made, device, made.context.sharing()

    def data_files(self) -> str:
        """Write manifest, test labels, data card and thumbnails again."""
        write_data(self._prepared)
        return "written again from the images, whose digest is the study's"

    def checkpoint(self, record: TrialRecord) -> str:
        """Train a finished trial again, for its tensors alone."""
        made, device, sharing = self._ready
        if record.score is None:
            raise HarnessError(f"{record.trial_id} has no score to compare with")
        train_again(record.job, made.context, device, record.score, sharing)
        return f"{record.trial_id} was trained again and scores the same; its record stays"

    def predictions(self, event: TestScored | Explored, record: TrialRecord) -> str:
        """Let a model answer the test images again, as it did when `event` was written."""
        made, device, sharing = self._ready
        shift = event.shift if isinstance(event, Explored) else None
        task = ScoreTask(record.job, made.test_rows, cast(Shift | None, shift), score=record.score)
        answer = run_task(task, made.context, device, lambda epoch: True, sharing)
        assert isinstance(answer, Scored)  # to a ScoreTask
        labels = confirm.read_test_labels(made)
        name = Path(event.predictions).stem
        again = metrics.all_metrics(answer.probabilities, labels)
        if not _same_metrics(again, event.metrics, SAME):
            raise HarnessError("the model's answers are not those that the log tells of")
        confirm.store_predictions(made, name, answer.probabilities, labels)
        return "written again by the model that made them; every metric is the log's"

    def mistakes(self, state: StudyState) -> str:
        """Pick the surest mistakes again from the stored predictions."""
        if not state.verdicts:
            raise HarnessError("there is no verdict yet")
        winners = scored_predictions(state, self.folder, "winner")
        shown = mistakes.shown(winners, state.verdicts[-1], self.study)
        mistakes.write_mistakes(shown, self._prepared.context.images, self.folder.mistakes)
        return "picked again from the predictions"


def _same_metrics(one: dict[str, Any], other: dict[str, Any], tolerance: float) -> bool:
    """Whether two results of `metrics.all_metrics` say the same, up to rounding."""
    if one.keys() != other.keys():
        return False
    pairs = [(one[name], other[name]) for name in one if isinstance(other[name], int | float)]
    return all(abs(a - b) <= tolerance for a, b in pairs)
