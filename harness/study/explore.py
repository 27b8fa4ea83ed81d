"""After the verdict: what another choice would have cost, how the sides fare with less data and on shifted images.

Nothing here is chosen by, and nothing changes the verdict. Every model is one of a confirmation seed: its split, order,
views and initialisation, so that differences are paired.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.config.space import space
from harness.config.study import StudyConfig
from harness.results.event_types import ControlledChange, ControlledSelected, Explored
from harness.results.names import confirmation_split, fraction_split
from harness.results.records import TrialJob
from harness.results.trial_id import TrialId
from harness.seeds import derive
from harness.study import confirm
from harness.study.confirm import Candidate
from harness.study.controlled import changes
from harness.study.executors.base import ScoreTask
from harness.study.jobs import score_all, train_all
from harness.study.session import Session


@dataclass(frozen=True)
class ScoreRequest:
    """A model to answer the test images, and what its answer is for."""

    task: ScoreTask
    candidate: Candidate
    index: int  # of the confirmation's seed
    fraction: float | None = None  # of the training images; None: the test images are shifted
    train_images: int | None = None  # how many that is

    @property
    def what(self) -> Literal["data_size", "shift"]:
        return "shift" if self.fraction is None else "data_size"

    @property
    def done_as(self) -> tuple[Any, ...]:
        """How the log names it."""
        key = self.candidate.config.key()
        return self.what, self.candidate.strategy, key, self.index, self.fraction, self.task.shift


def wants_more(session: Session) -> bool:
    """Whether something is asked for that the log does not hold, and `time` has not run out."""
    if not session.state.verdicts:
        return True
    if _out_of_time(session):
        return False
    winners = confirm.winners(session)
    jobs = [*_controlled_jobs(session, winners, _planned(session, winners)), *_size_jobs(session, winners)]
    return any(job.trial_id not in session.state.later for job in jobs) or bool(_unanswered(session, winners)[0])


def run(session: Session) -> None:
    """Train and score what the study asks for, from where an earlier session stopped."""
    if not session.state.verdicts:
        return
    if _out_of_time(session) and wanted(session.study):
        session.observer.message("The study's time is used up: what comes after the verdict was left out.")
        return
    winners = confirm.winners(session)
    if planned := _planned(session, winners):
        selection = ControlledSelected(_controlled_seeds(session), planned)
        if session.state.controlled != selection:
            session.append(selection)
        train_all(session, list(_controlled_jobs(session, winners, planned)), "One choice at a time")
    if sizes := list(_size_jobs(session, winners)):
        train_all(session, sizes, "Data sizes")
    asked, done = _unanswered(session, winners)
    if asked:
        keep = partial(
            _keep, session, {one.task.task_id: one for one in asked}, confirm.read_test_labels(session.prepared)
        )
        score_all(session, [one.task for one in asked], "Exploring the test split", keep, done)


def wanted(study: StudyConfig) -> bool:
    """Whether the study asks for anything after its verdict."""
    return bool(study.controlled.changes or study.data_sizes or study.shifts)


def _out_of_time(session: Session) -> bool:
    bound = session.study.time
    return bound is not None and session.state.seconds + time.monotonic() - session.started >= bound


def _planned(session: Session, winners: dict[str, Candidate]) -> dict[str, tuple[ControlledChange, ...]]:
    most = session.study.controlled.changes
    return {
        strategy: tuple(found)
        for strategy, winner in winners.items()
        if (found := changes(space(session.study, winner.config.strategy), winner.config, most))
    }


def _controlled_seeds(session: Session) -> int:
    return min(session.study.controlled.seeds, session.study.confirmation.seeds)


def _controlled_jobs(
    session: Session, winners: dict[str, Candidate], planned: dict[str, tuple[ControlledChange, ...]]
) -> Iterator[TrialJob]:
    """Seed by seed; all changes of all strategies at one seed first."""
    for index in range(_controlled_seeds(session)):
        for strategy, entries in planned.items():
            for entry in entries:
                name = TrialId("controlled", strategy, index, entry.config.key())
                yield TrialJob(
                    str(name),
                    "controlled",
                    winners[strategy].config.strategy,
                    index,
                    entry.config,
                    derive(session.study.seed, "confirmation", index),
                    confirmation_split(index),
                )


def _size_job(session: Session, winner: Candidate, fraction: float, index: int) -> TrialJob:
    name = TrialId("data_size", winner.strategy, index, winner.config.key(), fraction)
    return TrialJob(
        str(name),
        "data_size",
        winner.config.strategy,
        index,
        winner.config,
        derive(session.study.seed, "confirmation", index),
        fraction_split(index, fraction),
    )


def _size_jobs(session: Session, winners: dict[str, Candidate]) -> Iterator[TrialJob]:
    """All images is what the confirmation trained on: no job."""
    for index in range(session.study.confirmation.seeds):
        for fraction in session.study.data_sizes:
            for winner in winners.values():
                if fraction < 1:
                    yield _size_job(session, winner, fraction, index)


def _unanswered(session: Session, winners: dict[str, Candidate]) -> tuple[list[ScoreRequest], int]:
    """What is still to be scored, and how much was."""
    rows, study = session.prepared.test_rows, session.study
    asked: list[ScoreRequest] = []
    for index in range(study.confirmation.seeds):
        for winner in winners.values():
            confirmed = winner.job(index, study.seed, 1)
            score = session.state.later[confirmed.trial_id].score
            asked += [ScoreRequest(ScoreTask(confirmed, rows, s, score=score), winner, index) for s in study.shifts]
            for fraction in study.data_sizes:
                if fraction == 1:
                    continue
                job = _size_job(session, winner, fraction, index)
                record = session.state.later.get(job.trial_id)
                if record is not None and record.state != "complete":
                    continue  # no model: the state stands in the log
                train = len(session.prepared.context.splits[job.split][0])
                task = ScoreTask(job, rows, score=record.score if record else None)
                asked.append(ScoreRequest(task, winner, index, fraction, train))
    done = {(e.what, e.strategy, e.config_key, e.seed_index, e.fraction, e.shift) for e in session.state.explored}
    left = [one for one in asked if one.done_as not in done]
    return left, len(asked) - len(left)


def _keep(
    session: Session,
    plan: dict[str, ScoreRequest],
    labels: NDArray[np.int64],
    task_id: str,
    probabilities: NDArray[np.float32],
) -> None:
    one = plan[task_id]
    suffix = one.task.shift if one.fraction is None else f"size{one.fraction:g}"
    name = f"{one.candidate.strategy}-{one.candidate.config.key()}-{one.index}-{suffix}"
    stored = confirm.store_predictions(session.prepared, name, probabilities, labels)
    session.append(
        Explored(
            what=one.what,
            strategy=one.candidate.strategy,
            config_key=one.candidate.config.key(),
            seed_index=one.index,
            fraction=one.fraction,
            train_images=one.train_images,
            shift=one.task.shift,
            **stored,
        )
    )
