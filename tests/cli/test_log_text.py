"""The event log as a person reads it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from harness.cli.log_text import Line, format_events, format_lines
from harness.config.trial import TrialConfig
from harness.results.event_types import (
    EpochDone,
    SessionEnded,
    SessionStarted,
    StudyCreated,
    TrialFinished,
    TrialInterrupted,
    TrialStarted,
    VerdictReached,
)
from harness.results.events import EventLog, scan_log
from harness.results.records import EpochRecord, TrialJob, TrialRecord

STUDY = {
    "objective": "balanced_accuracy",
    "strategies": ["feature_extraction", "fine_tuning"],
    "trials": 2,
    "epochs": 1,
    "seed": 0,
}
HEAD = TrialConfig("feature_extraction", "resnet18", 0, 1e-3, None)
DEEP = TrialConfig("fine_tuning", "resnet18", 3, 3e-4, 3e-5, batchnorm="fixed_stats", weight_decay=0.02)


def record(trial_id: str, config: TrialConfig, attempt: int = 1, **changes: Any) -> TrialRecord:
    epoch = EpochRecord(1, 0.7, {"balanced_accuracy": 0.831, "loss": 0.5}, config.head_lr, config.backbone_lr, 1.5)
    made = TrialRecord(
        job=TrialJob(trial_id, "search", config.strategy, 0, config, 0, "search", attempt),
        state="complete",
        reason=None,
        epochs=(epoch,),
        best_epoch=1,
        score=0.831,
        seconds_alone=4.2,
        trainable_parameters=1,
        total_parameters=2,
        device="cpu",
        started_at="2026-01-01T00:00:00+00:00",
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    """A study with everything that can happen to a trial."""
    log = EventLog(tmp_path / "study" / "events.jsonl")
    log.append(StudyCreated(STUDY, fingerprint={}))
    environment = {"torch": "2.11.0", "device": "cpu (a processor)", "threads": 2, "workers": 1, "commit": "abc"}
    log.append(SessionStarted(environment, resumed=False))
    start(log, "feature_extraction/0", HEAD)
    log.append(EpochDone("feature_extraction/0", 1, 1, score=0.831))
    log.append(TrialFinished(record("feature_extraction/0", HEAD)))
    start(log, "fine_tuning/0", DEEP)
    reason = "worker died: the worker died (signal SIGKILL)"
    log.append(TrialInterrupted("fine_tuning/0", 1, "worker_died", reason))
    start(log, "fine_tuning/0", DEEP, attempt=2)
    failed = record("fine_tuning/0", DEEP, state="diverged", reason="loss is nan in epoch 1", score=None, attempt=2)
    log.append(TrialFinished(failed))
    yield log
    log.close()


def start(log: EventLog, trial_id: str, config: TrialConfig, attempt: int = 1) -> None:
    job = TrialJob(trial_id, "search", config.strategy, 0, config, 0, "search", attempt)
    log.append(TrialStarted(job, redraw=0, params={}))


def lines(log: EventLog, running: int | None = None) -> list[Line]:
    return format_events(scan_log(Path(log._stream.name)), "score", running)


def texts(log: EventLog, running: int | None = None) -> str:
    return "\n".join(format_lines(lines(log, running), UTC, "UTC"))


def test_each_trial_is_a_line_with_configuration_state_score_and_seconds(log: EventLog) -> None:
    said = texts(log)
    assert "feature_extraction/0 resnet18, frozen, head rate 1e-3, weight decay 1e-4: complete" in said
    assert ": complete, balanced accuracy 83.1 % in 4.2 s\n" in said
    assert (
        "fine_tuning/0 (attempt 2) resnet18, depth 3, fixed_stats, head rate 3e-4, backbone rate 3e-5, "
        "weight decay 2e-2: diverged (loss is nan in epoch 1) in 4.2 s" in said
    )
    assert "fine_tuning/0 interrupted: worker died: the worker died (signal SIGKILL); it runs again" in said
    assert "session 1 started: torch 2.11.0, cpu (a processor), 2 threads, 1 worker, commit abc" in said


def test_only_what_went_wrong_is_a_problem_and_only_epochs_are_epochs(log: EventLog) -> None:
    log.append(SessionEnded("finished", seconds=130.0))
    wrong = [line.text for line in lines(log) if line.problem]
    assert len(wrong) == 2 and "interrupted" in wrong[0] and "diverged" in wrong[1]
    [epoch] = [line.text for line in lines(log) if line.epoch]
    assert epoch == "feature_extraction/0 epoch 1: balanced accuracy 83.1 %, training loss 0.700, 1.5 s"
    assert "session 1 finished after 2 min" in texts(log)


def test_a_killed_session_is_told_where_the_next_begins_and_at_the_end(log: EventLog) -> None:
    start(log, "fine_tuning/1", DEEP)
    assert lines(log)[-2].text.endswith("started then, and was cut off") and "fine_tuning/1" in lines(log)[-2].text
    assert lines(log)[-1].text == "session 1 has no end: it was killed"
    log.append(SessionStarted(environment={}, resumed=True))
    wrong = [line.text for line in lines(log) if line.problem]
    assert wrong.count("session 1 has no end: it was killed") == 1
    assert wrong[-1] == "session 2 has no end: it was killed"


def test_a_study_that_runs_says_so_and_what_it_trains(log: EventLog) -> None:
    start(log, "fine_tuning/1", DEEP)
    said = texts(log, running=4711)
    assert "the study is running (process 4711)" in said
    assert "fine_tuning/1 resnet18, depth 3, fixed_stats, head rate 3e-4, backbone rate 3e-5" in said.splitlines()[-2]
    assert "training since then" in said and "killed" not in said


def test_a_torn_last_line_and_a_damaged_middle_are_told_in_their_place(log: EventLog) -> None:
    path = Path(log._stream.name)
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*whole[:3], b"?!\n", *whole[4:]]) + b'{"seq":')
    said = [line.text for line in lines(log)]
    assert said[2] == "from line 4 on 3 bytes cannot be read, so their events are missing here"
    assert any("the last one, is torn (7 bytes)" in text for text in said)
    assert any("feature_extraction/0 resnet18" in text for text in said)  # what can be read is there


def test_no_control_character_reaches_the_terminal(log: EventLog) -> None:
    evil = "\x1b[2Jwiped\r\n\x07\u202egnp.exe\x9b31m"
    failed = record("fine_tuning/1", DEEP, state="failed", reason=evil, score=None)
    log.append(TrialFinished(failed))
    for text in format_lines(lines(log), UTC, "UTC"):
        assert not any(ord(c) < 32 or 127 <= ord(c) < 160 or c == "\u202e" for c in text), text
    assert "\\x1b[2Jwiped\\r\\n" in texts(log)


def test_times_are_in_the_zone_that_is_named() -> None:
    happened = [Line("2026-03-01T23:30:00.000+00:00", "late"), Line("2026-03-01T23:45:00.000+00:00", "later")]
    assert list(format_lines(happened, UTC, "UTC")) == ["2026-03-01 (UTC)", "23:30:00  late", "23:45:00  later"]
    east = timezone(timedelta(hours=1), "CET")
    assert list(format_lines(happened, east, "")) == ["2026-03-02 (CET)", "00:30:00  late", "00:45:00  later"]


def test_an_epoch_of_a_trial_that_has_not_ended_shows_its_score(log: EventLog) -> None:
    start(log, "fine_tuning/1", DEEP)
    log.append(EpochDone("fine_tuning/1", 1, 1, score=0.7))
    assert [line.text for line in lines(log) if line.epoch][-1] == "fine_tuning/1 epoch 1: balanced accuracy 70.0 %"


def test_the_epochs_of_each_attempt_are_told_from_its_own_record(log: EventLog) -> None:
    start(log, "fine_tuning/1", DEEP)
    log.append(EpochDone("fine_tuning/1", 1, 1, score=0.7))
    log.append(TrialInterrupted("fine_tuning/1", 1, "worker_died", "worker died: signal 9"))
    start(log, "fine_tuning/1", DEEP, attempt=2)
    log.append(EpochDone("fine_tuning/1", 2, 1, score=0.831))
    log.append(TrialFinished(record("fine_tuning/1", DEEP, attempt=2)))
    assert [line.text for line in lines(log) if line.epoch][-2:] == [
        "fine_tuning/1 epoch 1: balanced accuracy 70.0 %",
        "fine_tuning/1 (attempt 2) epoch 1: balanced accuracy 83.1 %, training loss 0.700, 1.5 s",
    ]


def test_where_nothing_was_confirmed_the_reason_is_told(log: EventLog) -> None:
    log.append(VerdictReached(1, None, "a side is missing", comparisons=[], recommendation=None))
    assert lines(log)[-2].text == "no verdict: a side is missing"
