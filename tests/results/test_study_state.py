"""One replay of the log: what it holds after any event, from wherever it goes on."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config.trial import TrialConfig
from harness.results.event_types import (
    ConfirmationSelected,
    Duplicate,
    EpochDone,
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
)
from harness.results.events import Event
from harness.results.records import Kind, TrialJob, TrialRecord
from harness.results.study_state import EndedTrial, StudyState, best_trial, config_key, cut_off, ranked
from harness.results.trial_id import TrialId

CONFIG = TrialConfig("fine_tuning", "resnet18", 3, 3e-4, 3e-5, batchnorm="fixed_stats")
OTHER = dataclasses.replace(CONFIG, batchnorm="frozen")


def job(slot: int, config: TrialConfig = CONFIG, *, kind: Kind = "search", attempt: int = 1) -> TrialJob:
    name = TrialId(kind, "fine_tuning", slot, None if kind == "search" else config.key())
    return TrialJob(str(name), kind, "fine_tuning", slot, config, 0, "search", attempt)


def record(of: TrialJob, score: float | None = 0.5, **changes: Any) -> TrialRecord:
    made = TrialRecord(
        job=of,
        state="complete" if score is not None else "failed",
        reason=None,
        epochs=(),
        best_epoch=1,
        score=score,
        seconds_alone=1.0,
        trainable_parameters=1,
        total_parameters=2,
        device="cpu",
        started_at="2026-01-01T00:00:00+00:00",
    )
    return dataclasses.replace(made, **changes)


def logged(*said: StudyEvent | tuple[float, StudyEvent]) -> list[Event]:
    """Events a second apart, or at the minute that is given."""
    start = datetime.fromisoformat("2026-11-21T09:00:00.000+00:00")
    made = []
    for seq, one in enumerate(said, 1):
        minutes, data = one if isinstance(one, tuple) else (seq / 60, one)
        made.append(Event(seq, (start + timedelta(minutes=minutes)).isoformat(), data))
    return made


CREATED = StudyCreated({"objective": "accuracy"}, {})
BEGAN = SessionStarted({"torch": "2"}, resumed=False)


def story() -> list[Event]:
    """A study with a killed session, a dead worker, a duplicate, a confirmation and a verdict."""
    key = CONFIG.key()
    return logged(
        CREATED,
        BEGAN,
        TrialStarted(job(0), 0, {"head_lr": 3e-4}),
        EpochDone("fine_tuning/0", 1, 1, 0.5),
        TrialFinished(record(job(0))),
        TrialStarted(job(1, OTHER), 0, {"head_lr": 1e-3}),
        TrialInterrupted("fine_tuning/1", 1, "worker_died", "worker died: signal 9"),
        TrialStarted(job(1, OTHER, attempt=2), 0, {"head_lr": 1e-3}),  # and then it was killed
        SessionStarted({"torch": "3"}, resumed=True),
        cut_off(job(1, OTHER, attempt=2)),
        TrialStarted(job(1, OTHER, attempt=2), 0, {"head_lr": 1e-3}),
        TrialFinished(record(job(1, OTHER, attempt=2), 0.7)),
        Duplicate("fine_tuning", 2, 0, CONFIG, {"head_lr": 3e-4}, of="fine_tuning/0"),
        StrategyExhausted("fine_tuning", 2),
        SearchFinished("exhausted", 4),
        ConfirmationSelected(
            1,
            4,
            1,
            {
                "fine_tuning": (
                    SelectedConfig(OTHER, "best", "fine_tuning/1"),
                    SelectedConfig(CONFIG, "best", "fine_tuning/0"),
                )
            },
        ),
        TrialFinished(record(job(0, OTHER, kind="confirmation"))),
        TestScored(1, "fine_tuning", "winner", key, 0, {"accuracy": 0.7}, "p.npz"),
        VerdictReached(1, None, "a side is missing", [], None),
        SessionEnded("finished", 30.0),
    )


def test_it_holds_slots_attempts_and_what_optuna_is_told() -> None:
    state = StudyState.of(story())
    first, second = state.slots["fine_tuning"][0], state.slots["fine_tuning"][1]
    assert (first.attempt, second.attempt) == (1, 2)
    assert second.record is not None
    assert [(name, one.key, one.params, one.state, one.score) for name, one in state.ended] == [
        ("fine_tuning", "fine_tuning/0#1", {"head_lr": 3e-4}, "complete", 0.5),
        ("fine_tuning", "fine_tuning/1#2", {"head_lr": 1e-3}, "complete", 0.7),
        ("fine_tuning", "fine_tuning/2~0", {"head_lr": 3e-4}, "duplicate", 0.5),
    ]
    assert isinstance(state.ended[0][1], EndedTrial)
    assert (state.filled, state.search_finished, state.exhausted, state.looks) == (2, 4, {"fine_tuning"}, 1)
    assert [one.trial_id for one in state.records] == ["fine_tuning/0", "fine_tuning/1", *state.later]
    assert state.in_flight == {}
    assert state.same_config(CONFIG) is state.finished[0]
    assert state.done and state.verdicts[-1].verdict_reason == "a side is missing" and state.test_looks == 1
    assert state.environment == {"torch": "3"}


def test_replay_from_the_middle_equals_replay_from_the_start() -> None:
    events = story()
    whole = StudyState.of(events)
    for place in range(len(events) + 1):
        state = StudyState.of(events[:place])
        for event in events[max(place - 3, 0) :]:  # some of them a second time
            state.apply(event)
        assert state == whole, place


def test_the_whole_log_again_changes_nothing() -> None:
    events = story()
    state = StudyState.of([*events, *events])
    assert state == StudyState.of(events)


def test_a_trial_in_flight_is_known_until_it_ends() -> None:
    events = story()
    assert [trial.job.key for trial in StudyState.of(events[:6]).in_flight.values()] == ["fine_tuning/1#1"]
    assert StudyState.of(events[:7]).in_flight == {}
    assert StudyState.of(events[:8]).in_flight["fine_tuning/1#2"].at == events[7].at


def test_the_coordinators_own_end_counts_no_attempt() -> None:
    state = StudyState.of(logged(CREATED, TrialStarted(job(0), 0, {}), cut_off(job(0))))
    assert state.slots["fine_tuning"][0].attempt == 1
    assert state.slots["fine_tuning"][0].params == {}
    later = job(0, kind="confirmation")
    died = TrialInterrupted(later.trial_id, 1, "worker_died", "worker died: signal 9")
    state = StudyState.of(logged(CREATED, TrialStarted(later, 0, {}), cut_off(later), died))
    assert state.attempts[later.trial_id] == 2


@pytest.mark.parametrize(("objective", "best"), [("accuracy", 0.9), ("log_loss", 0.4)])
def test_the_best_trial_is_the_best_in_the_objectives_direction(objective: str, best: float) -> None:
    trials = [TrialFinished(record(job(slot), score)) for slot, score in enumerate((0.6, 0.4, 0.9, None))]
    state = StudyState.of(logged(StudyCreated({"objective": objective}, {}), *trials))
    assert state.best_scores == {"fine_tuning": best}


def test_a_pruned_trial_is_never_the_best() -> None:
    state = StudyState.of(logged(CREATED, TrialFinished(record(job(0), 0.9, state="pruned"))))
    assert state.best("fine_tuning") is None and state.best_scores == {}


@settings(max_examples=50)
@given(st.permutations(range(6)), st.lists(st.sampled_from([0.1, 0.5, None]), min_size=6, max_size=6))
def test_all_ways_to_ask_for_the_best_trial_agree(order: list[int], scores: list[float | None]) -> None:
    """Of equals the earlier slot is the best, in whatever order they ended."""
    trials = [record(job(slot), scores[slot]) for slot in order]
    state = StudyState.of(logged(CREATED, *map(TrialFinished, trials)))
    best = state.best("fine_tuning")
    assert best == next(iter(state.ranked("fine_tuning")), None) == best_trial(trials, "fine_tuning", "accuracy")
    expected = [slot for slot in range(6) if scores[slot] == max((s for s in scores if s is not None), default=None)]
    assert (best.slot if best else None) == (expected[0] if best else None)
    assert [one.slot for one in ranked(trials, "accuracy")][:1] == expected[: 1 if best else 0]


def test_the_later_record_of_a_trial_counts_in_the_place_of_the_first() -> None:
    said = [TrialFinished(record(job(0), 0.1)), TrialFinished(record(job(1), 0.2)), TrialFinished(record(job(0), 0.3))]
    assert [(one.slot, one.score) for one in StudyState.of(logged(CREATED, *said)).records] == [(0, 0.3), (1, 0.2)]


def test_confirmed_configurations_have_roles_and_keep_their_first() -> None:
    default = dataclasses.replace(CONFIG, unfreeze_depth=5)
    chosen = tuple(
        SelectedConfig(config, role, None) for config, role in ((CONFIG, "best"), (OTHER, "best"), (default, "default"))
    )
    again = (SelectedConfig(CONFIG, "best", None), SelectedConfig(dataclasses.replace(CONFIG, ema=0.9), "best", None))
    state = StudyState.of(
        logged(
            ConfirmationSelected(1, 4, 3, {"fine_tuning": chosen}),
            ConfirmationSelected(2, 8, 3, {"fine_tuning": again}),
        )
    )
    configs = (CONFIG, OTHER, default, again[1].config)
    roles = [state.role(job(0, config, kind="confirmation")) for config in configs]
    assert roles == ["best", "best 2", "default", "best 2 of look 2"]
    assert state.role(job(0)) is None


def test_a_session_that_was_killed_counts_to_its_last_event() -> None:
    done = EpochDone("fine_tuning/0", 1, 1, 0.5)
    state = StudyState.of(logged((0, BEGAN), (5, done), (100, BEGAN), (101, SessionEnded("finished", 60.0))))
    assert state.seconds_spent == 5 * 60 + 60
    assert state.seconds == 60
    running = StudyState.of(logged((0, BEGAN), (5, done)))
    assert running.is_running and running.seconds_spent == 5 * 60 and running.session_state is None


def test_a_clock_that_jumps_back_takes_no_time_away() -> None:
    assert StudyState.of(logged((10, BEGAN), (0, EpochDone("fine_tuning/0", 1, 1, 0.5)))).seconds_spent == 0


def test_sessions_are_counted_by_how_they_ended() -> None:
    ends = [SessionEnded("interrupted", 60.0), SessionEnded("finished", 60.0)]
    state = StudyState.of(logged(BEGAN, BEGAN, ends[0], BEGAN, ends[1], BEGAN))  # the first was killed, the last runs
    assert state.sessions == {"started": 4, "interrupted": 1, "failed": 0, "cut_off": 1}
    assert not state.done


def test_the_key_of_a_confirmed_configuration_is_the_one_in_its_name() -> None:
    later = dataclasses.replace(job(0, kind="confirmation"), config=OTHER)
    assert config_key(record(later)) == CONFIG.key()
    assert config_key(record(job(0))) == CONFIG.key()
