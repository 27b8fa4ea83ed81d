"""The event log as a person reads it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from harness.config.trial import TrialConfig
from harness.report.chronicle import Line, chronicle, told
from harness.results.events import EventLog, survey
from harness.results.records import EpochRecord, TrialRecord

STUDY = {
    "objective": "balanced_accuracy", "strategies": ["feature_extraction", "fine_tuning"], "trials": 2, "epochs": 1,
    "seed": 0,
}  # fmt: skip
HEAD = TrialConfig("feature_extraction", "resnet18", 0, 1e-3, None)
DEEP = TrialConfig("fine_tuning", "resnet18", 3, 3e-4, 3e-5, batchnorm="fixed_stats", weight_decay=0.02)


def record(trial_id: str, config: TrialConfig, **changes: Any) -> TrialRecord:
    epoch = EpochRecord(1, 0.7, {"balanced_accuracy": 0.831, "loss": 0.5}, config.head_lr, config.backbone_lr, 1.5)
    made = TrialRecord(
        trial_id=trial_id, kind="search", strategy=config.strategy, slot=0, config=config, seed=0, state="complete",
        reason=None, epochs=(epoch,), best_epoch=1, score=0.831, seconds_alone=4.2, trainable_parameters=1,
        total_parameters=2, device="cpu", started_at="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    """A study with everything that can happen to a trial."""
    log = EventLog(tmp_path / "study" / "events.jsonl")
    log.append("study_created", {"study": STUDY, "fingerprint": {}})
    environment = {"torch": "2.11.0", "device": "cpu (a processor)", "threads": 2, "workers": 1, "commit": "abc"}
    log.append("session_started", {"environment": environment, "resumed": False})
    start(log, "feature_extraction/0", HEAD)
    log.append(
        "epoch", {"trial_id": "feature_extraction/0", "attempt": 1, **dataclasses.asdict(record("", HEAD).epochs[0])}
    )
    log.append("trial_finished", record("feature_extraction/0", HEAD).to_json())
    start(log, "fine_tuning/0", DEEP)
    reason = "worker died: the worker died (signal SIGKILL)"
    log.append("trial_interrupted", {"trial_id": "fine_tuning/0", "attempt": 1, "reason": reason, "requeued": True})
    start(log, "fine_tuning/0", DEEP, attempt=2)
    failed = record("fine_tuning/0", DEEP, state="diverged", reason="loss is nan in epoch 1", score=None, attempt=2)
    log.append("trial_finished", failed.to_json())
    yield log
    log.close()


def start(log: EventLog, trial_id: str, config: TrialConfig, attempt: int = 1) -> None:
    log.append("trial_started", {
        "trial_id": trial_id, "kind": "search", "strategy": config.strategy, "slot": 0, "redraw": 0,
        "attempt": attempt, "config": config.to_json(), "seed": 0, "params": {},
    })  # fmt: skip


def lines(log: EventLog, running: int | None = None) -> list[Line]:
    return chronicle(survey(Path(log._stream.name)), "score", running)


def texts(log: EventLog, running: int | None = None) -> str:
    return "\n".join(told(lines(log, running), UTC, "UTC"))


def test_each_trial_is_a_line_with_configuration_state_score_and_seconds(log: EventLog) -> None:
    said = texts(log)
    assert "feature_extraction/0 resnet18, frozen, head rate 1e-3, weight decay 1e-4: complete" in said
    assert ": complete, balanced accuracy 83.1 % in 4.2 s\n" in said
    assert (
        "fine_tuning/0 (attempt 2) resnet18, depth 3, fixed_stats, head rate 3e-4, backbone rate 3e-5, "
        "weight decay 2e-2: diverged (loss is nan in epoch 1) in 4.2 s" in said
    )
    assert "fine_tuning/0 interrupted: worker died: the worker died (signal SIGKILL); it is tried again" in said
    assert "session 1 started: torch 2.11.0, cpu (a processor), 2 threads, 1 worker, commit abc" in said


def test_only_what_went_wrong_is_a_problem_and_only_epochs_are_epochs(log: EventLog) -> None:
    log.append("session_ended", {"state": "finished", "seconds": 130.0})
    wrong = [line.text for line in lines(log) if line.problem]
    assert len(wrong) == 2 and "interrupted" in wrong[0] and "diverged" in wrong[1]
    [epoch] = [line.text for line in lines(log) if line.epoch]
    assert epoch == "feature_extraction/0 epoch 1: balanced accuracy 83.1 %, training loss 0.700, 1.5 s"
    assert "session 1 finished after 2 min" in texts(log)


def test_a_killed_session_is_told_where_the_next_begins_and_at_the_end(log: EventLog) -> None:
    start(log, "fine_tuning/1", DEEP)
    assert lines(log)[-2].text.endswith("begun then, and cut off") and "fine_tuning/1" in lines(log)[-2].text
    assert lines(log)[-1].text == "session 1 has no end: it was killed"
    log.append("session_started", {"environment": {}, "resumed": True})
    wrong = [line.text for line in lines(log) if line.problem]
    assert wrong.count("session 1 has no end: it was killed") == 1
    assert wrong[-1] == "session 2 has no end: it was killed"


def test_a_study_that_runs_says_so_and_what_it_trains(log: EventLog) -> None:
    start(log, "fine_tuning/1", DEEP)
    said = texts(log, running=4711)
    assert "the study runs now (process 4711)" in said
    assert "fine_tuning/1 resnet18, depth 3, fixed_stats, head rate 3e-4, backbone rate 3e-5" in said.splitlines()[-2]
    assert "training since then" in said and "killed" not in said


def test_a_torn_last_line_and_a_damaged_middle_are_told_in_their_place(log: EventLog) -> None:
    path = Path(log._stream.name)
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*whole[:3], b"?!\n", *whole[4:]]) + b'{"seq":')
    said = [line.text for line in lines(log)]
    assert said[2] == "from line 4 on 3 bytes cannot be read, and what they told is missing here"
    assert any("the last one, is torn (7 bytes)" in text for text in said)
    assert any("feature_extraction/0 resnet18" in text for text in said)  # what can be read is there


def test_no_control_character_reaches_the_terminal(log: EventLog) -> None:
    evil = "\x1b[2Jwiped\r\n\x07\u202egnp.exe\x9b31m"
    failed = record("fine_tuning/1", DEEP, state="failed", reason=evil, score=None)
    log.append("trial_finished", failed.to_json())
    log.append("a kind of another version\x1b[31m", {})
    for text in told(lines(log), UTC, "UTC"):
        assert not any(ord(c) < 32 or 127 <= ord(c) < 160 or c == "\u202e" for c in text), text
    assert "\\x1b[2Jwiped\\r\\n" in texts(log)


def test_times_are_in_the_zone_that_is_named() -> None:
    happened = [Line("2026-03-01T23:30:00.000+00:00", "late"), Line("2026-03-01T23:45:00.000+00:00", "later")]
    assert list(told(happened, UTC, "UTC")) == ["2026-03-01 (UTC)", "23:30:00  late", "23:45:00  later"]
    east = timezone(timedelta(hours=1), "CET")
    assert list(told(happened, east, "")) == ["2026-03-02 (CET)", "00:30:00  late", "00:45:00  later"]


def test_an_event_of_another_version_does_not_stop_the_story(log: EventLog) -> None:
    log.append("session_ended", {"how": "unknown"})
    log.append("verdict", {"look": 1, "verdict": None, "verdict_reason": "a side is missing"})
    said = [line.text for line in lines(log)]
    assert "session_ended" in said
    assert "no verdict: a side is missing" in said
