"""Make files of a study again from its images: the data's files, a finished trial's model and its predictions.

It is a file of its own because it needs torch and the images, which most checks do not. It starts no new trial and
makes no new look at the test split: the results must equal those in the log, otherwise they are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from harness.analysis.test_predictions import scored_predictions
from harness.config.load import LoadedStudy
from harness.config.study import StudyConfig
from harness.errors import ConfigError, HarnessError
from harness.results.event_types import Explored, TestScored
from harness.results.paths import StudyFolder
from harness.results.records import TrialRecord
from harness.results.study_state import StudyState
from harness.study import confirm, mistakes
from harness.study.environment import resolve_devices
from harness.study.executors.base import Scored, ScoreTask
from harness.study.executors.run_task import configure_torch, run_task, train_again
from harness.study.identity import differences
from harness.study.prepare import Prepared, prepare
from harness.study.study_files import write_data
from harness.training.frozen_features.worker_cache import WorkerCache


@dataclass
class Rebuilder:
    """Makes files of a study again; reads its images when they are first needed.

    Every method raises a HarnessError if the images, the device or the numbers are not those of the study.
    """

    folder: StudyFolder
    study: StudyConfig
    fingerprint: dict[str, Any]  # of the log

    @cached_property
    def _prepared(self) -> Prepared:
        loaded = LoadedStudy(self.folder.name, self.study, False, Path(f"{self.folder.name}.yaml"))
        devices = resolve_devices(self.study.device, self.study.workers)
        prepared = prepare(loaded, devices, lambda what, done, of: None)
        if prepared.dataset.digest != self.fingerprint.get("data digest"):
            raise ConfigError("the images are not those the study was started with")
        return prepared

    @cached_property
    def _ready(self) -> tuple[Prepared, torch.device, WorkerCache]:
        """All that training needs; an error if it would give other numbers on this machine."""
        prepared = self._prepared
        if changed := differences(self.fingerprint, prepared.fingerprint):
            raise ConfigError(f"here it would give other numbers ({changed[0]})")
        configure_torch(prepared.context)
        device = torch.device(resolve_devices(self.study.device, self.study.workers)[0])
        return prepared, device, prepared.context.worker_cache()

    def data_files(self) -> str:
        """Write manifest, test labels, data card and thumbnails again."""
        write_data(self._prepared)
        return "written again from the images, whose digest is the study's"

    def checkpoint(self, record: TrialRecord) -> str:
        """Train a finished trial again to get its checkpoint; its record stays."""
        prepared, device, worker_cache = self._ready
        if record.score is None:
            raise HarnessError(f"{record.trial_id} has no score to compare with")
        train_again(record.job, prepared.context, device, record.score, worker_cache)
        return f"{record.trial_id} was trained again and got the same score; its record stays"

    def predictions(self, event: TestScored | Explored, record: TrialRecord) -> str:
        """Score a model on the test images again, as was done for `event`."""
        prepared, device, worker_cache = self._ready
        shift = event.shift if isinstance(event, Explored) else None
        task = ScoreTask(record.job, prepared.test_rows, shift, score=record.score)
        scored = run_task(task, prepared.context, device, lambda epoch: True, worker_cache)
        assert isinstance(scored, Scored)  # a ScoreTask has no other result here
        confirm.store_again(prepared, event, scored.probabilities, confirm.read_test_labels(prepared))
        return "written again by the model that made them; every metric equals the log's"

    def mistakes(self, state: StudyState) -> str:
        """Select the surest mistakes again from the stored predictions."""
        if not state.verdicts:
            raise HarnessError("there is no verdict yet")
        winners = scored_predictions(state, self.folder, "winner")
        winner = mistakes.recommended_winner(winners, state.verdicts[-1], self.study)
        mistakes.write_mistakes(winner, self._prepared.context.images, self.folder.mistakes)
        return "selected again from the predictions"
