"""One study as the report sees it: its stored files, each read once, and the tables and results made from them.

It is a file of its own because the page, the comparison of studies and the tests all start from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from harness.analysis import explored
from harness.analysis.explored import ChangeResult, ConditionResult
from harness.analysis.summary import assemble
from harness.analysis.tables import epochs, trials
from harness.analysis.test_predictions import TestPredictions, scored_predictions
from harness.analysis.verdict_text import describe
from harness.analysis.wording import redact_all
from harness.config.study import StudyConfig
from harness.results.events import read_events
from harness.results.paths import StudyFolder
from harness.results.records import TrialRecord
from harness.results.stored_study import object_or_empty, stored_document
from harness.results.study_state import StudyState


@dataclass(frozen=True)
class StudyData:
    """The stored state of a study, finished or still running. Results are computed when they are first used.

    Texts in `card`, `study_json`, `fingerprint` and `summary` contain no absolute path and no password.
    """

    folder: StudyFolder
    study: StudyConfig
    study_json: dict[str, Any]
    fingerprint: dict[str, Any]
    card: dict[str, Any]
    state: StudyState
    records: Sequence[TrialRecord]
    importance: dict[str, dict[str, dict[str, Any]]]  # strategy -> method -> {"trials": n, "shares": {...}}

    @classmethod
    def read(cls, folder: StudyFolder) -> StudyData:
        """Read the stored files of a study. A study that has only begun has empty tables.

        Files that the page can do without (data card, importances) count as missing if they cannot be read.

        Raises:
            HarnessError: the log is damaged, or neither log nor study.json describes the study.
        """
        stored = stored_document(folder)
        study = StudyConfig.model_validate(stored["study"])
        state = StudyState.of(read_events(folder.events), study.objective)
        return cls(
            folder=folder,
            study=study,
            study_json=redact_all(stored["study"]),
            fingerprint=redact_all(stored.get("fingerprint", {})),
            card=redact_all(_card(folder, stored)),
            state=state,
            records=state.records,
            importance=object_or_empty(folder.importance),
        )

    @cached_property
    def trials(self) -> pd.DataFrame:
        """The search trials, one row each: see `tables.trials`."""
        return trials(self.records)

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """The epochs of all trials, one row each: see `tables.epochs`."""
        return epochs(self.records)

    @cached_property
    def winners(self) -> dict[str, TestPredictions]:
        """The winner's test predictions for each strategy that was scored on the test split."""
        return scored_predictions(self.state, self.folder, "winner")

    @cached_property
    def defaults(self) -> dict[str, TestPredictions]:
        """The default's test predictions for each strategy; a default that won is the same object as in `winners`."""
        return scored_predictions(self.state, self.folder, "default", known=self.winners)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The content of summary.json: see `summary.assemble`."""
        return assemble(self.folder, self.study, self.state, self.card, self.winners, self.defaults)

    @cached_property
    def changed(self) -> list[ChangeResult]:
        """The winners with one choice changed at a time: see `explored.changed`."""
        return explored.changed(self.state, self.winners, self.study.objective)

    @cached_property
    def sizes(self) -> list[ConditionResult]:
        """The winners on fewer training images: see `explored.sizes`."""
        return explored.sizes(self.state, self.winners, self.folder, self.study, self._train_images)

    @cached_property
    def shifts(self) -> list[ConditionResult]:
        """The winners on shifted test images: see `explored.shifts`."""
        return explored.shifts(self.state, self.winners, self.folder, self.study, self._train_images)

    @property
    def _train_images(self) -> int:
        return int(self.summary["data"]["split"]["train"])

    @cached_property
    def complete(self) -> pd.DataFrame:
        """The complete trials with a score; `attrs["objective"]` names the metric of the score."""
        table = self.trials[(self.trials["state"] == "complete") & self.trials["score"].notna()].copy()
        table.attrs["objective"] = self.study.objective
        return table

    @property
    def rendered(self) -> bool:
        """Whether the images are rendered, not photographs."""
        return bool(self.card.get("rendered", False))

    @property
    def running(self) -> bool:
        """Whether the last session has no end in the log: it runs, or it was killed."""
        return self.state.is_running

    def class_names(self, number: int) -> list[str]:
        """Return the names of the classes, or `class 0`, `class 1`, ... if the data card has another number of them."""
        names: list[str] = self.summary["data"]["classes"]
        return names if len(names) == number else [f"class {k}" for k in range(number)]

    @property
    def earlier_verdicts(self) -> list[tuple[str, str]]:
        """Day and sentence of every verdict before the latest one, or the reason why there was none."""
        each = zip(self.state.verdicts_at, self.state.verdicts, strict=True)
        return [(at[:10], redact_all(describe(reached, self.study.objective) or "")) for at, reached in each][:-1]

    @property
    def looks(self) -> int:
        """How many times the test split was scored."""
        return self.state.test_looks


def _card(folder: StudyFolder, stored: dict[str, Any]) -> dict[str, Any]:
    """Return the data card; {} if it cannot be read, or if it is of other images than the study's."""
    card, wanted = object_or_empty(folder.data_card), stored.get("fingerprint", {}).get("data digest")
    return card if wanted is None or card.get("digest") == wanted else {}
