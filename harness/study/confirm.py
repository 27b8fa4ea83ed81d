"""Confirm the search: train the best configurations and the default again, then look at the test split once.

Each seed changes everything at once: the split of the non-test part, image order, augmented views and initialisation.
The winner of a strategy is the configuration with the best mean validation score over the seeds. Only winners and
defaults are scored on the test split. Only this file reads the test labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.analysis.test_predictions import ScoreEvent, same_metrics, scored_predictions
from harness.analysis.verdict import conclude
from harness.atomic import atomic_path
from harness.config.space import space
from harness.config.trial import TrialConfig
from harness.errors import HarnessError
from harness.results import metrics
from harness.results.event_types import ConfirmationSelected, SelectedConfig, TestScored, VerdictReached
from harness.results.names import confirmation_split
from harness.results.records import TrialJob, TrialRecord
from harness.results.trial_id import TrialId
from harness.seeds import derive
from harness.study import export
from harness.study.executors.base import ScoreTask
from harness.study.jobs import score_all, train_all
from harness.study.mistakes import recommended_winner, write_mistakes
from harness.study.prepare import Prepared
from harness.study.session import Session


@dataclass(frozen=True)
class Candidate:
    """A configuration that is confirmed."""

    strategy: str
    config: TrialConfig
    role: str  # why it is confirmed: "best", "default" or "best+default"
    trial_id: str | None  # the search trial of this configuration; None if there is none

    def job(self, index: int, seed: int, attempt: int) -> TrialJob:
        """Return its confirmation trial for the seed with this index; `seed` is the study's seed."""
        name = str(TrialId("confirmation", self.strategy, index, self.config.key()))
        return TrialJob(
            name,
            "confirmation",
            self.strategy,
            index,
            self.config,
            derive(seed, "confirmation", index),
            confirmation_split(index),
            attempt,
        )


def wants_more(session: Session) -> bool:
    """Whether the study asks for more slots or more seeds than the last verdict is based on."""
    looks = session.state.confirmations
    if not looks or not session.state.verdicts:
        return True
    last, study = looks[-1], session.study
    return study.trials > last.trials or study.confirmation.seeds > last.seeds


def run(session: Session) -> None:
    """Train, select winners on validation, score them on test, and conclude; continue what an earlier session began."""
    if not wants_more(session):
        return
    study, look = session.study, session.state.looks + 1
    selected = {strategy: candidates(session, strategy) for strategy in study.strategies}
    configs: dict[str, tuple[SelectedConfig, ...]] = {
        strategy: tuple(SelectedConfig(c.config, c.role, c.trial_id) for c in group)
        for strategy, group in selected.items()
    }
    selection = ConfirmationSelected(look, study.trials, study.confirmation.seeds, configs)
    if session.state.confirmations[-1:] != [selection]:
        session.append(selection)
    seeds = range(study.confirmation.seeds)
    everyone = [candidate for group in selected.values() for candidate in group]
    train_all(session, [c.job(index, study.seed, 1) for index in seeds for c in everyone], "Confirmation")
    _score(session, selected, look)
    winners = scored_predictions(session.state, session.folder, "winner")
    verdict = VerdictReached(look=look, **conclude(session.state, winners, study))
    write_mistakes(
        recommended_winner(winners, verdict, study), session.prepared.context.images, session.folder.mistakes
    )
    session.append(verdict)
    if verdict.recommended_trial is not None:
        export.log_recommended(session, verdict.recommended_trial)


def candidates(session: Session, strategy: Any) -> list[Candidate]:
    """Return the best configurations of a strategy by validation score, and its default, each once."""
    ranked = session.state.ranked(strategy)
    if not ranked:
        return []
    default = space(session.study, strategy).default()
    found = [
        Candidate(strategy, r.config, "best+default" if r.config == default else "best", r.trial_id)
        for r in ranked[: session.study.confirmation.top]
    ]
    if all(candidate.config != default for candidate in found):
        searched = session.state.same_config(default)
        found.append(Candidate(strategy, default, "default", searched.trial_id if searched else None))
    return found


def winners(session: Session) -> dict[str, Candidate]:
    """Return the winner of each strategy that has one, among the candidates of the last confirmation."""
    found = {strategy: winner(session, candidates(session, strategy)) for strategy in session.study.strategies}
    return {strategy: best for strategy, best in found.items() if best is not None}


def winner(session: Session, group: list[Candidate]) -> Candidate | None:
    """Return the candidate with the best mean validation score; None if none completed with every seed."""
    sign = metrics.sign_of(session.study.objective)
    means: list[tuple[float, Candidate]] = []
    for candidate in group:
        records = _records(session, candidate)
        if all(record.state == "complete" and record.score is not None for record in records):
            means.append((sign * float(np.mean([record.score for record in records])), candidate))
    return max(means, key=lambda pair: pair[0])[1] if means else None


def _records(session: Session, candidate: Candidate) -> list[TrialRecord]:
    seed = session.study.seed
    return [
        session.state.later[candidate.job(index, seed, 1).trial_id] for index in range(session.study.confirmation.seeds)
    ]


def _score(session: Session, selected: dict[Any, list[Candidate]], look: int) -> None:
    """Score winners and defaults on the test split."""
    plan: dict[str, tuple[ScoreTask, Candidate, str, int]] = {}
    for group in selected.values():
        best = winner(session, group)
        for candidate in group:
            roles = ["winner"] * (candidate is best) + ["default"] * ("default" in candidate.role)
            records = _records(session, candidate)
            if not roles or any(record.state != "complete" for record in records):
                continue
            for index in range(session.study.confirmation.seeds):
                job, score = candidate.job(index, session.study.seed, 1), records[index].score
                task = ScoreTask(job, session.prepared.test_rows, score=score)
                plan[task.task_id] = (task, candidate, "+".join(roles), index)
    scored = [score for score in session.state.test_scores if score.look == look]
    done = {(score.strategy, score.role, score.config_key, score.seed_index) for score in scored}
    waiting = [task for task, c, role, index in plan.values() if (c.strategy, role, c.config.key(), index) not in done]
    labels = read_test_labels(session.prepared)

    def store(task_id: str, probabilities: NDArray[np.float32]) -> None:
        _, c, role, index = plan[task_id]
        stored = store_predictions(session.prepared, f"{c.strategy}-{c.config.key()}-{index}", probabilities, labels)
        session.append(TestScored(look, c.strategy, role, c.config.key(), index, **stored))

    score_all(session, waiting, "Scoring the test split", store, len(plan) - len(waiting))


def store_predictions(
    prepared: Prepared, name: str, probabilities: NDArray[np.float32], labels: NDArray[np.int64]
) -> dict[str, Any]:
    """Write one model's test predictions, and return the fields of their event: `metrics` and `predictions`."""
    rows = prepared.test_rows
    path = prepared.folder.predictions / f"{name}.npz"
    groups = prepared.dataset.table["group"].to_numpy()[rows].astype(str)
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, probabilities=probabilities, labels=labels, groups=groups, rows=rows)
    return {"metrics": metrics.all_metrics(probabilities, labels), "predictions": path.name}


def store_again(
    prepared: Prepared, event: ScoreEvent, probabilities: NDArray[np.float32], labels: NDArray[np.int64]
) -> None:
    """Write the file of predictions that an event of the log names, from answers that its model gave again.

    Raises:
        HarnessError: the answers do not give the metrics of the event, so they are not those that were scored.
    """
    again = metrics.all_metrics(probabilities, labels)
    if not same_metrics(again, event.metrics):
        raise HarnessError("the metrics of the new predictions differ from those in the log")
    store_predictions(prepared, Path(event.predictions).stem, probabilities, labels)


def read_test_labels(prepared: Prepared) -> NDArray[np.int64]:
    """Read the class indices of the test part, in the order of its rows."""
    table = pd.read_csv(prepared.folder.test_labels)
    by_row = dict(zip(table["row"], table["label"], strict=True))
    return np.array([by_row[row] for row in prepared.test_rows.tolist()], np.int64)
