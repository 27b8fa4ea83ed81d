"""References beside the verdict: nearest neighbours on the frozen features of every backbone that was used."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from canned_executor import CannedExecutor
from sklearn.neighbors import KNeighborsClassifier
from small_study import Watching, World

from harness.config.fit import Fit
from harness.config.initial_weights import WeightsChoice
from harness.model.transfer import build
from harness.results.event_types import ReferenceScored, VerdictReached
from harness.study import references
from harness.study.executors.base import Died, Handler, NeighboursFound, NeighboursTask, WorkerContext
from harness.study.executors.run_task import run_task
from harness.training.out_of_memory import MemoryFallback

TWO = {"backbone": ["mobilenet_v3_small", "resnet18"], "batch_size": 16}


def test_every_backbone_gets_one_at_every_seed_and_nothing_is_trained_for_it(canned_world: World) -> None:
    canned_world.write(weights="bundled", search=TWO, trials=4)
    watching = Watching()
    canned_world.run(watching=watching)
    found = canned_world.of(ReferenceScored)
    assert {(one.backbone, one.seed_index) for one in found} == {(b, i) for b in TWO["backbone"] for i in (0, 1)}
    assert len(found) == 4
    assert {job.kind for job in watching.jobs} == {"search", "confirmation"}
    assert canned_world.run().already_finished


def test_random_weights_give_none(canned_world: World) -> None:
    canned_world.write(weights="none")
    canned_world.run()
    assert canned_world.of(ReferenceScored) == []


def test_a_finished_study_gets_them_later_and_keeps_its_verdict(
    canned_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    canned_world.write(weights="bundled")
    with monkeypatch.context() as patch:
        patch.setattr(references, "missing", lambda session: [])
        canned_world.run()
    verdicts, watching = canned_world.of(VerdictReached), Watching()
    assert canned_world.of(ReferenceScored) == []
    assert not canned_world.run(watching=watching).already_finished
    assert [one.seed_index for one in canned_world.of(ReferenceScored)] == [0, 1]
    assert canned_world.of(VerdictReached) == verdicts
    assert watching.jobs == []


def test_more_seeds_get_theirs_and_the_others_stay(canned_world: World) -> None:
    canned_world.write(weights="bundled")
    canned_world.run()
    canned_world.write(weights="bundled", confirmation={"top": 1, "seeds": 3})
    canned_world.run()
    assert [one.seed_index for one in canned_world.of(ReferenceScored)] == [0, 1, 2]


def test_one_that_cannot_be_computed_is_left_out_and_a_message_says_why(
    canned_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    canned_world.write(weights="bundled", search=TWO, trials=4)
    poll = CannedExecutor.poll

    def fail(self: CannedExecutor, handle: Handler, timeout: float) -> None:
        first = self._tasks[0] if self._tasks else None
        if isinstance(first, NeighboursTask) and first.config.backbone == "resnet18":
            self._tasks.pop(0)
            handle(Died(first.task_id, "the frozen features are not finite"))
        else:
            poll(self, handle, timeout)

    monkeypatch.setattr(CannedExecutor, "poll", fail)
    watching = Watching()
    result = canned_world.run(watching=watching)
    assert result.sentence is not None
    assert {one.backbone for one in canned_world.of(ReferenceScored)} == {"mobilenet_v3_small"}
    assert [text for text in watching.texts if "neighbours resnet18: left out" in text and "not finite" in text]


@pytest.fixture
def task() -> NeighboursTask:
    config = references.reference_config("mobilenet_v3_small", 16)
    return NeighboursTask(config, ("search", "confirmation/0"), np.arange(32, 40))


def answers(task: NeighboursTask, context: WorkerContext) -> NeighboursFound:
    found: Any = run_task(task, context, torch.device("cpu"), lambda epoch: True, context.worker_cache())
    assert isinstance(found, NeighboursFound)
    return found


def test_the_features_are_those_of_the_pretrained_backbone_and_each_split_has_its_own_neighbours(
    context: WorkerContext, task: NeighboursTask
) -> None:
    rows = np.arange(32)
    context = replace(
        context,
        weights=WeightsChoice.read("bundled"),
        splits={"search": (rows[:24], rows[24:]), "confirmation/0": (rows[8:], rows[:8])},
    )
    found = answers(task, context)
    images = np.load(context.images[Fit(32)])
    model = build("mobilenet_v3_small", 2, "bundled", image_size=32).eval()
    mean, std = (np.array(each)[:, None, None] for each in (model.mean, model.std))
    inputs = (images.transpose(0, 3, 1, 2) / 255 - mean) / std
    with torch.no_grad():
        features = model.features(torch.tensor(inputs, dtype=torch.float32)).flatten(1).numpy()
    for answered, (train, _) in zip(found.answers, context.splits.values(), strict=True):
        known = KNeighborsClassifier(answered.number, metric="cosine").fit(features[train], context.labels[train])
        near = known.kneighbors(features[task.rows], return_distance=False)
        if answered.number == 1:
            assert np.array_equal(answered.probabilities.argmax(axis=1), context.labels[train[near[:, 0]]])
        votes = np.stack([(context.labels[train[near]] == c).sum(axis=1) for c in (0, 1)], axis=1)
        clear = np.abs(votes[:, 0] - votes[:, 1]) > answered.number / 2
        assert np.array_equal(answered.probabilities.argmax(axis=1)[clear], votes.argmax(axis=1)[clear])
        assert clear.any()
    assert not np.array_equal(found.answers[0].probabilities, found.answers[1].probabilities)


def test_in_micro_batches_the_answers_are_the_same(context: WorkerContext, task: NeighboursTask) -> None:
    context = replace(context, weights=WeightsChoice.read("bundled"))
    task = replace(task, splits=("search",))
    whole = answers(task, context).answers[0]
    parts = answers(replace(task, fallback=MemoryFallback(released=True, micro_batch=3)), context).answers[0]
    assert parts.number == whole.number
    assert parts.probabilities == pytest.approx(whole.probabilities, abs=1e-3)
