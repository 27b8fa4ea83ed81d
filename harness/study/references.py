"""References beside the verdict: what nearest neighbours on each backbone's frozen features reach on the test split.

They train nothing, and nothing is chosen by them. With each seed of the confirmation, neighbours are its training
images, and their number is the best on its validation images.
"""

from __future__ import annotations

from harness.config.parameters import PARAMETERS
from harness.results.event_types import ReferenceScored
from harness.results.metrics import all_metrics
from harness.results.names import confirmation_split
from harness.study.confirm import read_test_labels
from harness.study.executors.base import Died, NeighboursFound, NeighboursTask, Result
from harness.study.jobs import run_all
from harness.study.session import Session
from harness.training.neighbours import reference_config


def missing(session: Session) -> list[tuple[NeighboursTask, list[int]]]:
    """Return a task for each backbone and its weights that have complete trials, but lack the reference at some seeds.

    Its seeds are returned with it. Random weights give no reference.
    """
    study, known, choice = session.study, session.state.references, session.prepared.context.weights
    used = {
        (r.config.backbone, r.config.weights)
        for r in session.state.finished
        if r.state == "complete" and r.strategy != "from_scratch" and not choice.named(r.config.weights).is_random
    }
    tasks = list[tuple[NeighboursTask, list[int]]]()
    for backbone, weights in sorted(used):
        seeds = [index for index in range(study.confirmation.seeds) if (backbone, weights, index) not in known]
        if seeds:
            config = reference_config(backbone, PARAMETERS["batch_size"].default, weights)
            splits = tuple(confirmation_split(index) for index in seeds)
            tasks.append((NeighboursTask(config, splits, session.prepared.test_rows), seeds))
    return tasks


def run(session: Session) -> None:
    """Score the references that are missing. One that cannot be computed is left out, and a message says why."""
    tasks = missing(session)
    if not tasks:
        return
    labels = read_test_labels(session.prepared)
    seeds = {task.task_id: own for task, own in tasks}
    configs = {task.task_id: task.config for task, _ in tasks}

    def result(message: Result) -> None:
        assert isinstance(message, NeighboursFound)  # a NeighboursTask has no other result
        for index, found in zip(seeds[message.task_id], message.answers, strict=True):
            metrics = all_metrics(found.probabilities, labels)
            config = configs[message.task_id]
            session.append(
                ReferenceScored(
                    config.backbone, index, found.number, found.validation_score, metrics, weights=config.weights
                )
            )

    def failed(died: Died) -> bool:
        session.observer.message(f"{died.task_id}: left out, because it could not be computed: {died.reason}")
        return False

    run_all(session, [task for task, _ in tasks], "References", result, failed)
