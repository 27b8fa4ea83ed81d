"""Explore after the verdict: references, winners with one parameter changed, with less data, and on shifted images.

The results are not used for any choice and do not change the verdict. Each model uses the split, order, views and
initialisation of one of the confirmation's seeds, so that differences are paired.
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
from harness.study import confirm, references
from harness.study.confirm import Candidate
from harness.study.controlled import changes
from harness.study.executors.base import ScoreTask
from harness.study.jobs import score_all, train_all
from harness.study.session import Session


@dataclass(frozen=True)
class ScoreRequest:
    """A request to score one model on the test images."""

    task: ScoreTask
    candidate: Candidate
    index: int  # of the confirmation's seed
    fraction: float | None = None  # of the training images; None: the test images are shifted
    train_images: int | None = None  # number of training images in that fraction

    @property
    def what(self) -> Literal["data_size", "shift"]:
        """Which part of the exploration the request belongs to."""
        return "shift" if self.fraction is None else "data_size"

    @property
    def key(self) -> tuple[Any, ...]:
        """The values that identify its `Explored` event in the log."""
        config_key = self.candidate.config.key()
        return self.what, self.candidate.strategy, config_key, self.index, self.fraction, self.task.shift


def wants_more(session: Session) -> bool:
    """Whether the study asks for something that the log does not hold, and its `time` is not used up."""
    if not session.state.verdicts:
        return True
    if _out_of_time(session):
        return False
    if references.missing(session):
        return True
    winners = confirm.winners(session)
    jobs = [*_controlled_jobs(session, winners, _planned(session, winners)), *_size_jobs(session, winners)]
    return any(job.trial_id not in session.state.later for job in jobs) or bool(_score_requests(session, winners)[0])


def run(session: Session) -> None:
    """Train and score what the study asks for; continue what an earlier session began."""
    if not session.state.verdicts:
        return
    if _out_of_time(session) and wanted(session.study):
        session.observer.message("The study's time is used up, so nothing was explored after the verdict.")
        return
    if not _out_of_time(session):
        references.run(session)
    winners = confirm.winners(session)
    if planned := _planned(session, winners):
        selection = ControlledSelected(_controlled_seeds(session), planned)
        if session.state.controlled != selection:
            session.append(selection)
        train_all(session, list(_controlled_jobs(session, winners, planned)), "One choice at a time")
    if sizes := list(_size_jobs(session, winners)):
        train_all(session, sizes, "Data sizes")
    requests, done = _score_requests(session, winners)
    if requests:
        by_task = {request.task.task_id: request for request in requests}
        store = partial(_store, session, by_task, confirm.read_test_labels(session.prepared))
        score_all(session, [request.task for request in requests], "Exploring the test split", store, done)


def wanted(study: StudyConfig) -> bool:
    """Whether the study asks for anything after its verdict."""
    return bool(study.controlled.changes or study.data_sizes or study.shifts)


def _out_of_time(session: Session) -> bool:
    bound = session.study.time
    return bound is not None and session.state.seconds + time.monotonic() - session.started >= bound


def _planned(session: Session, winners: dict[str, Candidate]) -> dict[str, tuple[ControlledChange, ...]]:
    """Return the controlled changes of each winner that has any."""
    limit = session.study.controlled.changes
    return {
        strategy: tuple(found)
        for strategy, winner in winners.items()
        if (found := changes(space(session.study, winner.config.strategy), winner.config, limit))
    }


def _controlled_seeds(session: Session) -> int:
    return min(session.study.controlled.seeds, session.study.confirmation.seeds)


def _controlled_jobs(
    session: Session, winners: dict[str, Candidate], planned: dict[str, tuple[ControlledChange, ...]]
) -> Iterator[TrialJob]:
    """Yield the jobs seed by seed, so that an early end leaves complete seeds."""
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
    """Yield the jobs with less data. There is none for fraction 1, which the confirmation trained."""
    for index in range(session.study.confirmation.seeds):
        for fraction in session.study.data_sizes:
            for winner in winners.values():
                if fraction < 1:
                    yield _size_job(session, winner, fraction, index)


def _score_requests(session: Session, winners: dict[str, Candidate]) -> tuple[list[ScoreRequest], int]:
    """Return the requests that are not in the log yet, and the number of those that are."""
    rows, study = session.prepared.test_rows, session.study
    requests: list[ScoreRequest] = []
    for index in range(study.confirmation.seeds):
        for winner in winners.values():
            confirmed = winner.job(index, study.seed, 1)
            score = session.state.later[confirmed.trial_id].score
            requests += [ScoreRequest(ScoreTask(confirmed, rows, s, score=score), winner, index) for s in study.shifts]
            for fraction in study.data_sizes:
                if fraction == 1:
                    continue
                job = _size_job(session, winner, fraction, index)
                record = session.state.later.get(job.trial_id)
                if record is not None and record.state != "complete":
                    continue  # there is no model; the log says why
                train = len(session.prepared.context.splits[job.split][0])
                task = ScoreTask(job, rows, score=record.score if record else None)
                requests.append(ScoreRequest(task, winner, index, fraction, train))
    done = {(e.what, e.strategy, e.config_key, e.seed_index, e.fraction, e.shift) for e in session.state.explored}
    left = [request for request in requests if request.key not in done]
    return left, len(requests) - len(left)


def _store(
    session: Session,
    requests: dict[str, ScoreRequest],
    labels: NDArray[np.int64],
    task_id: str,
    probabilities: NDArray[np.float32],
) -> None:
    """Write the predictions of a request and its event. `requests` is by task id."""
    request = requests[task_id]
    candidate, config_key = request.candidate, request.candidate.config.key()
    suffix = request.task.shift if request.fraction is None else f"size{request.fraction:g}"
    name = f"{candidate.strategy}-{config_key}-{request.index}-{suffix}"
    stored = confirm.store_predictions(session.prepared, name, probabilities, labels)
    session.append(
        Explored(
            what=request.what,
            strategy=candidate.strategy,
            config_key=config_key,
            seed_index=request.index,
            fraction=request.fraction,
            train_images=request.train_images,
            shift=request.task.shift,
            **stored,
        )
    )
