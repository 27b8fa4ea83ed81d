"""Stored predictions count only if they give the metrics of the log; what does not is scored again."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from small_study import Watching, World

from harness.analysis.test_predictions import lost_predictions
from harness.errors import HarnessError
from harness.results.event_types import TestScored, VerdictReached
from harness.results.study_state import StudyState


def winner_files(world: World) -> list[str]:
    """The winners' files of the first seed, one for each strategy."""
    scored = [event for event in world.of(TestScored) if "winner" in event.role and event.seed_index == 0]
    return [event.predictions for event in scored]


def swap(world: World) -> None:
    one, other = (world.folder().predictions / name for name in winner_files(world))
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)


def remove(world: World) -> None:
    (world.folder().predictions / winner_files(world)[0]).unlink()


def cut_off(world: World) -> None:
    path = world.folder().predictions / winner_files(world)[0]
    os.truncate(path, path.stat().st_size // 2)


def lost(world: World) -> set[str]:
    return set(lost_predictions(StudyState.of(world.events()), world.folder()))


@pytest.mark.parametrize("damage", [swap, remove, cut_off])
def test_a_finished_study_scores_again_what_was_lost_and_keeps_its_verdict(
    copied: World, damage: Callable[[World], None]
) -> None:
    before = {path.name: path.stat().st_size for path in copied.folder().predictions.iterdir()}
    verdicts = copied.of(VerdictReached)
    assert lost(copied) == set()
    damage(copied)
    damaged = lost(copied)
    assert damaged and damaged <= set(winner_files(copied))
    watching = Watching()
    result = copied.run(watching=watching)
    assert lost(copied) == set()
    assert {path.name for path in copied.folder().predictions.iterdir()} == set(before)
    assert copied.of(VerdictReached) == verdicts
    assert result.sentence is not None
    assert sum("the model is scored again" in text for text in watching.texts) == len(damaged)
    assert not watching.jobs  # nothing is trained


@pytest.mark.parametrize("damage", [swap, remove, cut_off])
def test_a_study_that_was_killed_before_its_verdict_reaches_the_same_one(
    copied: World, damage: Callable[[World], None]
) -> None:
    [verdict] = copied.of(VerdictReached)
    log = copied.folder().events
    lines = log.read_bytes().splitlines(keepends=True)
    first = next(number for number, event in enumerate(copied.events()) if isinstance(event.data, VerdictReached))
    log.write_bytes(b"".join(lines[:first]))
    damage(copied)
    copied.run()
    [again] = copied.of(VerdictReached)
    assert again.verdict is not None and verdict.verdict is not None
    assert again.verdict["difference"] == verdict.verdict["difference"]
    assert again.verdict["ci95"] == verdict.verdict["ci95"]


def test_a_model_that_gives_other_answers_is_refused_with_the_way_out(copied: World) -> None:
    """The models of two seeds are exchanged, and with them what could make the predictions again."""
    folder = copied.folder()
    records = {record.trial_id: record for record in StudyState.of(copied.events()).records}
    scored = [event for event in copied.of(TestScored) if "winner" in event.role and event.strategy == "fine_tuning"]
    one, other = (folder.checkpoints / str(records[event.trial_id].checkpoint) for event in scored[:2])
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)
    lost_file = folder.predictions / scored[0].predictions
    lost_file.unlink()
    with pytest.raises(HarnessError, match=r"gives other answers than those that were scored.*AS=other"):
        copied.run()
    assert not lost_file.exists()  # no file that contradicts the log
