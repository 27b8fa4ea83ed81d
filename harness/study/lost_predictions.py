"""Score models again whose stored predictions are lost, damaged, or not those that the log holds metrics for.

Verdict, page and comparison are computed from the stored predictions, so they are checked at the start of a session.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from harness.analysis.test_predictions import ScoreEvent, lost_predictions
from harness.errors import HarnessError
from harness.results.event_types import Explored
from harness.study import confirm
from harness.study.executors.base import ScoreTask
from harness.study.jobs import score_all
from harness.study.session import Session


def any_lost(session: Session) -> bool:
    """Whether some predictions have to be made again."""
    return bool(lost_predictions(session.state, session.folder))


def restore(session: Session) -> None:
    """Score again what is lost. Nothing new is learned about the test split: the metrics must be those in the log.

    Raises:
        HarnessError: a model gives other answers than those that were scored.
    """
    tasks: dict[str, tuple[ScoreTask, ScoreEvent]] = {}
    for name, (event, fault) in lost_predictions(session.state, session.folder).items():
        session.observer.message(f"predictions/{name}: {fault}; the model is scored again")
        record = session.state.by_id[event.trial_id]
        shift = event.shift if isinstance(event, Explored) else None
        task = ScoreTask(record.job, session.prepared.test_rows, shift, score=record.score)
        tasks[task.task_id] = (task, event)
    if tasks:
        store = partial(_store, session, tasks, confirm.read_test_labels(session.prepared))
        score_all(session, [task for task, _ in tasks.values()], "Scoring the test split again", store)


def _store(
    session: Session,
    tasks: dict[str, tuple[ScoreTask, ScoreEvent]],
    labels: NDArray[np.int64],
    task_id: str,
    probabilities: NDArray[np.float32],
) -> None:
    _, event = tasks[task_id]
    try:
        confirm.store_again(session.prepared, event, probabilities, labels)
    except HarnessError as error:
        raise HarnessError(
            f"predictions/{event.predictions} is lost, and {event.trial_id} gives other answers than those that were "
            "scored: the metrics of the new predictions differ from those in the log. Images, weights or machine have "
            f"changed since. Bring them back, or begin again under another name (AS=other); `harness doctor "
            f"{session.prepared.name}` tells what else is changed."
        ) from error
