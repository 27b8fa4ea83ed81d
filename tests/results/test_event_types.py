"""Every kind of event goes to JSON and comes back as it was."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

import pytest

from harness.config.trial import TrialConfig
from harness.results.event_types import (
    EVENT_TYPES,
    ConfirmationSelected,
    ControlledChange,
    ControlledSelected,
    Duplicate,
    EpochDone,
    Explored,
    ModelLogged,
    ReferenceScored,
    SearchFinished,
    SelectedConfig,
    SessionEnded,
    SessionStarted,
    StrategyExhausted,
    StudyCreated,
    StudyEvent,
    TestScored,
    TrialFinished,
    TrialInterrupted,
    TrialStarted,
    VerdictReached,
    from_json,
    to_json,
)
from harness.results.events import EventLog, decode, encode, read_events
from harness.results.records import EpochRecord, TrialJob, TrialRecord
from harness.results.trial_id import TrialId

CONFIG = TrialConfig("fine_tuning", "resnet18", 3, 3e-4, 3e-5, batchnorm="fixed_stats")
OTHER = dataclasses.replace(CONFIG, batchnorm="frozen")
JOB = TrialJob("fine_tuning/0", "search", "fine_tuning", 0, CONFIG, 7, "search", attempt=2)
RECORD = TrialRecord(
    job=JOB,
    state="complete",
    reason=None,
    epochs=(EpochRecord(1, 0.7, {"accuracy": 0.8}, 3e-4, None, 1.5),),
    best_epoch=1,
    score=0.8,
    seconds_alone=4.2,
    trainable_parameters=1,
    total_parameters=2,
    device="cpu",
    started_at="2026-01-01T00:00:00+00:00",
    warnings=("slow",),
    extra={"note": [1, 2]},
)

EXAMPLES: list[StudyEvent] = [
    StudyCreated({"objective": "accuracy", "trials": 2}, {"data digest": "ab"}),
    SessionStarted({"torch": "2"}, resumed=True),
    TrialStarted(JOB, redraw=1, params={"head_lr": 1e-3}),
    EpochDone("fine_tuning/0", 2, 1, score=0.8),
    TrialFinished(RECORD),
    TrialInterrupted("fine_tuning/0", 2, "worker_died", "worker died: signal 9"),
    TrialInterrupted("fine_tuning/0", 2, "coordinator_ended", "coordinator ended"),
    Duplicate("fine_tuning", 1, 0, CONFIG, {"head_lr": 3e-4}, of="fine_tuning/0"),
    StrategyExhausted("fine_tuning", slots=4),
    SearchFinished("budget", trials=4),
    ConfirmationSelected(
        1,
        4,
        3,
        {"fine_tuning": (SelectedConfig(CONFIG, "best", "fine_tuning/0"), SelectedConfig(OTHER, "default", None))},
    ),
    TestScored(1, "fine_tuning", "winner+default", "0a1b", 2, {"accuracy": 0.7, "recall": [0.5, 0.9]}, "p.npz"),
    ReferenceScored("resnet18", 1, 5, 0.6, {"accuracy": 0.5}),
    VerdictReached(1, {"difference": 0.1}, None, [{"a": "x", "b": "y"}], {"strategy": "fine_tuning"}),
    VerdictReached(2, None, "a side is missing", [], None),
    Explored("data_size", "fine_tuning", "0a1b", 1, {"accuracy": 0.6}, "q.npz", fraction=0.5, train_images=50),
    Explored("shift", "fine_tuning", "0a1b", 1, {"accuracy": 0.6}, "r.npz", shift="blur"),
    ControlledSelected(2, {"fine_tuning": (ControlledChange("batchnorm", "frozen", OTHER),)}),
    ModelLogged("models:/m-1", "confirmation/fine_tuning/0a1b/2", 0.8),
    SessionEnded("finished", seconds=1.5),
]


def test_there_is_an_example_of_every_type() -> None:
    assert {type(example) for example in EXAMPLES} == set(EVENT_TYPES)


def test_every_type_has_a_kind_of_its_own() -> None:
    assert max(Counter(each.kind for each in EVENT_TYPES).values()) == 1


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: type(event).__name__)
def test_every_event_comes_back_from_json(event: StudyEvent) -> None:
    back = from_json(event.kind, json.loads(json.dumps(to_json(event))))
    assert back == event
    assert type(back) is type(event)


def test_every_event_comes_back_from_a_log_and_gives_the_same_line_again(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    for event in EXAMPLES:
        log.append(event)
    log.close()
    assert [event.data for event in read_events(tmp_path / "log")] == EXAMPLES
    for line in (tmp_path / "log").read_bytes().splitlines(keepends=True):
        read = decode(line)
        assert read is not None
        assert encode(read) == line


def test_an_unknown_kind_and_unknown_fields_are_refused() -> None:
    with pytest.raises(KeyError):
        from_json("nonsense", {})
    with pytest.raises(TypeError):
        from_json("session_ended", {"state": "finished", "seconds": 1.0, "more": 1})


def test_a_scored_model_names_the_trial_that_it_is_of() -> None:
    names = [event.trial_id for event in EXAMPLES if isinstance(event, TestScored | Explored)]
    assert names == [
        str(TrialId("confirmation", "fine_tuning", 2, "0a1b")),
        str(TrialId("data_size", "fine_tuning", 1, "0a1b", 0.5)),
        str(TrialId("confirmation", "fine_tuning", 1, "0a1b")),
    ]
