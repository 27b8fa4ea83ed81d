"""Where there is no terminal, a study tells how far it is in lines: enough of them, and none twice."""

from __future__ import annotations

import io

import pytest

from harness.cli import progress
from harness.cli.progress import QUIET_SECONDS, Watcher
from harness.cli.terminal import Terminal
from harness.config.parameters import default_values
from harness.config.trial import TrialConfig
from harness.results.records import TrialJob, TrialRecord


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_a_long_phase_without_trials_says_how_far_it_is(clock: Clock) -> None:
    stream = io.StringIO()
    watcher = Watcher(Terminal(file=stream), "accuracy")
    for done in range(81):  # one takes 7 seconds: 80 of them nine minutes
        watcher.phase("Exploring the test split", done, 80)
        clock.now += 7
    lines = stream.getvalue().splitlines()
    assert lines[0] == "Exploring the test split: 0 of 80 done"
    assert lines[1] == "Exploring the test split: 5 of 80 done"
    assert len(lines) == 17
    assert len(set(lines)) == len(lines)


def test_a_phase_that_does_not_move_is_silent(clock: Clock) -> None:
    stream = io.StringIO()
    watcher = Watcher(Terminal(file=stream), "accuracy")
    for _ in range(100):
        watcher.phase("Search", 3, 16)
        clock.now += QUIET_SECONDS
    assert stream.getvalue().splitlines() == ["Search: 3 of 16 done"]


def test_what_a_line_has_told_is_not_told_again(clock: Clock) -> None:
    stream = io.StringIO()
    watcher = Watcher(Terminal(file=stream), "accuracy")
    watcher.phase("Search", 3, 16)
    config = TrialConfig(strategy="feature_extraction", **default_values("feature_extraction"))
    watcher.trial_finished(
        TrialRecord(
            job=TrialJob("feature_extraction/3", "search", "feature_extraction", 3, config, 0, "search"),
            state="complete",
            reason=None,
            epochs=(),
            best_epoch=1,
            score=0.8,
            seconds_alone=1.0,
            trainable_parameters=1,
            total_parameters=2,
            device="cpu",
            started_at="2026-01-01T00:00:00+00:00",
        )
    )
    clock.now += 2 * QUIET_SECONDS
    watcher.phase("Search", 4, 16)  # the trial's own line said so
    assert len(stream.getvalue().splitlines()) == 2
