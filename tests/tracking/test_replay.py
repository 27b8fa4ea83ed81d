"""Exactly once, whatever breaks: the walk over the log against a store in memory that fails at every place."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from harness.config.trial import TrialConfig
from harness.results.event_types import ConfirmationSelected, SearchFinished, SelectedConfig, SessionStarted, TestScored
from harness.results.events import Event
from harness.tracking import mapping as shown
from harness.tracking.replay import Projector, Run


class Lost(Exception):
    """The store did not answer."""


@dataclass
class Held:
    """What the store really holds of a run."""

    name: str
    parent: str | None
    tags: dict[str, str]
    status: str = "RUNNING"
    points: list[tuple[str, int, float]] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)


class MemoryStore:
    """Keeps runs as MLflow does; its call number `fails_at` is lost, before or after (part of) its effect."""

    def __init__(self) -> None:
        self.held: dict[str, Held] = {}
        self.calls = 0
        self.fails_at = -1
        self.how = "before"

    def _call(self, effect: Callable[[], Any], first_part: Callable[[], Any] = lambda: None) -> Any:
        self.calls += 1
        if self.calls == self.fails_at:
            if self.how == "after":
                effect()
            elif self.how == "within":
                first_part()
            raise Lost
        return effect()

    def _new(self, name: str, parent: str | None, tags: Mapping[str, str]) -> Run:
        run_id = f"run{self.calls}"
        self.held[run_id] = Held(name, parent, dict(tags))
        return Run(run_id, tags=dict(tags))

    def _known(self, run_id: str) -> Run:
        return Run(run_id, self.held[run_id].status, dict(self.held[run_id].tags))

    def open_study(self, first: Event) -> tuple[Run, bool]:
        def effect() -> tuple[Run, bool]:
            for run_id, held in self.held.items():
                if held.parent is None:
                    return self._known(run_id), True
            return self._new("study", None, {}), False

        result: tuple[Run, bool] = self._call(effect)
        return result

    def trial_runs(self, parent: Run) -> dict[str, Run]:
        def effect() -> dict[str, Run]:
            keyed = {held.tags.get("harness.key"): run_id for run_id, held in self.held.items()}
            return {key: self._known(run_id) for key, run_id in keyed.items() if key is not None}

        result: dict[str, Run] = self._call(effect)
        return result

    def create_trial(self, parent: Run, name: str, tags: Mapping[str, str], at: str) -> Run:
        result: Run = self._call(lambda: self._new(name, parent.run_id, tags))
        return result

    def log(self, run: Run, update: shown.Update, *, doubtful: bool = False) -> None:
        held = self.held[run.run_id]
        points = [(point.name, point.step, point.value) for point in update.metrics]
        if doubtful:
            points = [point for point in points if point not in held.points]

        def first_part() -> None:
            held.points += points[: len(points) // 2]

        def effect() -> None:
            held.points += points
            held.params.update(update.params)
            held.tags.update(update.tags)

        self._call(effect, first_part)
        run.tags.update(update.tags)

    def set_status(self, run: Run, status: str, at: str | None = None) -> None:
        if run.status != status:
            self._call(lambda: setattr(self.held[run.run_id], "status", status))
            run.status = status

    def log_data(self, parent: Run) -> None: ...

    def data_digest(self) -> str | None:
        return "digest"

    def state(self) -> dict[str, Any]:
        """All that counts, without the notes of the walk itself."""
        assert len({held.name for held in self.held.values()}) == len(self.held), "a run was made twice"
        return {
            held.name: (
                held.status,
                Counter(held.points),
                held.params,
                {name: value for name, value in held.tags.items() if name != "harness.position"},
            )
            for held in self.held.values()
        }


@pytest.fixture
def events(make_study: Callable[..., Any], config_of: Callable[..., TrialConfig]) -> list[Event]:
    """Two sessions: a trial cut off and done again, a worker's death, a confirmation, a verdict."""
    study = make_study()
    study.session()
    study.trial("feature_extraction/1", config_of("feature_extraction"))
    study.start("fine_tuning/1", config_of())
    study.interrupt("fine_tuning/1")
    study.end("interrupted")
    study.session(resumed=True)
    study.trial("fine_tuning/1", config_of())
    study.start("fine_tuning/2", config_of(depth=1), slot=2)
    study.interrupt("fine_tuning/2", "worker died: killed by signal 9")
    study.trial("fine_tuning/2", config_of(depth=1), slot=2, attempt=2, state="failed", score=None)
    study.log.append(SearchFinished("budget", trials=2))
    key = config_of().key()
    chosen = SelectedConfig(config_of(), "best", "fine_tuning/1")
    study.log.append(ConfirmationSelected(look=1, trials=2, seeds=1, configs={"fine_tuning": (chosen,)}))
    study.trial(f"confirmation/fine_tuning/{key}/0", config_of(), kind="confirmation", slot=0)
    study.log.append(TestScored(1, "fine_tuning", "winner", key, 0, {"accuracy": 0.7}, "p"))
    study.verdict()
    study.end()
    return study.events


def walk_event_by_event(store: MemoryStore, events: list[Event], restart_at: int = -1) -> None:
    """As a coordinator does: the log grows, every failure is met with another call at the next event."""
    walk = Projector(store, "why")
    for end in range(1, len(events) + 1):
        if end == restart_at:
            walk = Projector(store, "why")
        try:
            walk.catch_up(events[:end])
        except Lost:
            walk.disconnect()
    walk.catch_up(events)


@pytest.fixture
def undisturbed(events: list[Event]) -> MemoryStore:
    store = MemoryStore()
    walk_event_by_event(store, events)
    return store


def test_every_trial_is_one_run_with_the_right_end(undisturbed: MemoryStore) -> None:
    assert {held.name: held.status for held in undisturbed.held.values()} == {
        "study": "FINISHED",
        "feature_extraction 01 · resnet18 · depth 0": "FINISHED",
        "fine_tuning 01 · resnet18 · depth 3": "FINISHED",
        "fine_tuning 02 · resnet18 · depth 1": "FAILED",
        "fine_tuning 02 · resnet18 · depth 1 · attempt 2": "FAILED",
        "confirmation · fine_tuning best · seed 0": "FINISHED",
    }


def test_every_metric_arrives_once(undisturbed: MemoryStore) -> None:
    for held in undisturbed.held.values():
        assert max(Counter(held.points).values(), default=1) == 1, held.name
    confirmed = next(held for held in undisturbed.held.values() if held.name.startswith("confirmation"))
    assert ("test_accuracy", 1, 0.7) in confirmed.points


@pytest.mark.parametrize("how", ["before", "within", "after"])
def test_a_failure_of_any_single_call_changes_nothing_in_the_end(
    events: list[Event], undisturbed: MemoryStore, how: str
) -> None:
    for number in itertools.count(1):
        store = MemoryStore()
        store.fails_at, store.how = number, how
        walk_event_by_event(store, events)
        assert store.state() == undisturbed.state(), f"call {number} lost {how} its effect"
        if store.calls < number:
            break
    assert number > 20


@pytest.mark.parametrize("how", ["before", "within", "after"])
def test_a_crash_at_any_call_and_a_restart_change_nothing_in_the_end(
    events: list[Event], undisturbed: MemoryStore, how: str
) -> None:
    for number in range(1, undisturbed.calls + 1):
        store = MemoryStore()
        store.fails_at, store.how = number, how
        with pytest.raises(Lost):
            walk = Projector(store, "why")
            for end in range(1, len(events) + 1):
                walk.catch_up(events[:end])
        Projector(store, "why").catch_up(events)
        assert store.state() == undisturbed.state(), f"crash at call {number}, {how} its effect"


def test_a_restart_between_any_two_events_changes_nothing(events: list[Event], undisturbed: MemoryStore) -> None:
    for place in range(1, len(events) + 1):
        store = MemoryStore()
        walk_event_by_event(store, events, restart_at=place)
        assert store.state() == undisturbed.state(), f"restart before event {place}"


def test_what_was_left_for_later_arrives_with_the_next_session_and_meanwhile_nothing_seems_to_run(
    events: list[Event], undisturbed: MemoryStore
) -> None:
    for place in range(len(events)):
        store, answers = MemoryStore(), iter([False] * place)
        walk = Projector(store, "why")
        for end in range(1, len(events) + 1):
            walk.catch_up(events[:end], lambda: next(answers, True))  # noqa: B023 - used up within the turn
        assert not [held.name for held in store.held.values() if held.status == "RUNNING"], f"left at event {place}"
        Projector(store, "why").catch_up(events)
        assert store.state() == undisturbed.state(), f"left at event {place}"


def test_the_whole_log_at_once_gives_the_same_as_event_by_event(events: list[Event], undisturbed: MemoryStore) -> None:
    store = MemoryStore()
    Projector(store, "why").catch_up(events)
    assert store.state() == undisturbed.state()


def test_a_finished_log_is_not_walked_again_after_a_restart(events: list[Event], undisturbed: MemoryStore) -> None:
    before = undisturbed.calls
    assert Projector(undisturbed, "why").catch_up(events) == 0
    assert undisturbed.calls == before + 2, "only the study's run and its trials' runs are looked up"


@pytest.mark.parametrize("more", [1, 100], ids=["a shorter log", "a longer log"])
def test_a_position_noted_for_events_that_a_power_cut_took_is_not_believed(events: list[Event], more: int) -> None:
    """The study went on with other events, fewer than were lost or more."""
    store = MemoryStore()
    Projector(store, "why").catch_up(events)
    shorter = events[: len(events) // 2]
    later = range(len(shorter) + 1, len(shorter) + 1 + more)
    at = "2030-01-01T00:00:00+00:00"
    changed = [*shorter, *(Event(seq, at, SessionStarted({}, resumed=True)) for seq in later)]
    assert Projector(store, "why").catch_up(changed) == len(changed)


def test_a_run_that_was_removed_for_good_is_sent_again(events: list[Event], undisturbed: MemoryStore) -> None:
    store = MemoryStore()
    Projector(store, "why").catch_up(events)
    gone = [run_id for run_id, held in store.held.items() if held.tags.get("harness.key") == "fine_tuning/1#1"]
    kept = store.held.pop(gone[0])
    assert Projector(store, "why").catch_up(events) == len(events)
    assert kept.name in {held.name for held in store.held.values()}
    assert store.state() == undisturbed.state()
