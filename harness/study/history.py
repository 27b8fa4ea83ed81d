"""Where a study stands, read from its event log: the coordinator keeps no other memory across a restart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from harness.config.trial import STRATEGIES, TrialConfig
from harness.results.events import Event
from harness.results.metrics import direction
from harness.results.records import TrialRecord
from harness.study.search import Ended

MAX_ATTEMPTS = 3  # a slot whose worker died so often is failed
MAX_REDRAWS = 10  # duplicates in a row after which a strategy is exhausted


@dataclass
class Slot:
    """One place in a strategy's budget."""

    redraw: int = 0
    attempt: int = 1  # of the trial that is to run, or runs
    params: dict[str, Any] | None = None  # Optuna's, of a trial that has to run again
    record: TrialRecord | None = None


@dataclass
class History:
    """The state of a study.

    `slots[strategy][k]` fills up in order; `later` holds the finished trials after the search, by id.
    """

    objective: str
    slots: dict[str, dict[int, Slot]] = field(default_factory=lambda: defaultdict(dict))
    params: dict[str, dict[str, Any]] = field(default_factory=dict)  # "trial_id#attempt" -> Optuna's parameters
    started: dict[str, str] = field(default_factory=dict)  # "trial_id#attempt" -> when it began, as the log has it
    finished: list[tuple[str, TrialRecord]] = field(default_factory=list)  # search, in the order they ended
    filled: int = 0  # slots of all strategies that have their record
    ended: list[tuple[str, Ended]] = field(default_factory=list)  # strategy, and what Optuna is told of
    later: dict[str, TrialRecord] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=lambda: defaultdict(lambda: 1))  # of those
    exhausted: set[str] = field(default_factory=set)
    search_finished: int | None = None  # budget of slots at which the search ended
    looks: int = 0
    seconds: float = 0.0  # of all sessions that ended
    sessions: int = 0
    done: bool = False
    # Kept up as trials end, so that what a slot costs does not grow with the slots before it.
    _by_strategy: dict[str, list[TrialRecord]] = field(default_factory=lambda: defaultdict(list))
    _by_config: dict[TrialConfig, TrialRecord] = field(default_factory=dict)
    _best: dict[str, TrialRecord] = field(default_factory=dict)

    @classmethod
    def of(cls, events: list[Event], objective: str) -> History:
        """Replay a log."""
        history = cls(objective)
        for event in events:
            history.apply(event)
        return history

    def apply(self, event: Event) -> None:
        """Take one event in."""
        data = event.data
        match event.kind:
            case "session_started":
                self.sessions += 1
                self.done = False
            case "session_ended":
                self.seconds += data["seconds"]
                self.done = data["state"] == "finished"
            case "trial_started" if data["kind"] == "search":
                self.params[f"{data['trial_id']}#{data['attempt']}"] = data["params"]
                self.started[f"{data['trial_id']}#{data['attempt']}"] = event.at
                slot = self.slots[data["strategy"]].setdefault(data["slot"], Slot())
                slot.redraw, slot.attempt, slot.params = data["redraw"], data["attempt"], data["params"]
            case "trial_interrupted":
                self._interrupted(data)
            case "trial_finished":
                self._finished(TrialRecord.from_json(data), event.at)
            case "duplicate":
                self.ended.append((data["strategy"], self._duplicate(data, event.at)))
                slot = self.slots[data["strategy"]].setdefault(data["slot"], Slot())
                slot.redraw, slot.params = data["redraw"] + 1, None
            case "strategy_exhausted":
                self.exhausted.add(data["strategy"])
            case "search_finished":
                self.search_finished = data["trials"]
            case "verdict":
                self.looks = data["look"]

    def _interrupted(self, data: dict[str, Any]) -> None:
        died = data["reason"].startswith("worker died")
        strategy, _, number = data["trial_id"].partition("/")
        if strategy not in STRATEGIES:
            self.attempts[data["trial_id"]] += died
            return
        self.slots[strategy][int(number)].attempt = data["attempt"] + died

    def _finished(self, record: TrialRecord, at: str) -> None:
        if record.kind != "search":
            self.later[record.trial_id] = record
            return
        key = f"{record.trial_id}#{record.attempt}"
        self.finished.append((key, record))
        ended = Ended.of(key, self.params.get(key, {}), record, self.started.get(key), at)
        self.ended.append((record.strategy, ended))
        slot = self.slots[record.strategy].setdefault(record.slot, Slot())
        self.filled += slot.record is None
        slot.record = record
        self._by_strategy[record.strategy].append(record)
        self._by_config.setdefault(record.config, record)
        best = self._best.get(record.strategy)
        if is_ranked(record) and (best is None or self._place(record) < self._place(best)):
            self._best[record.strategy] = record

    def _duplicate(self, data: dict[str, Any], at: str) -> Ended:
        strategy, _, number = data["of"].partition("/")
        twin = self.slots[strategy].get(int(number)) if number else None
        score = twin.record.score if twin and twin.record and twin.record.state == "complete" else None
        key = f"{data['strategy']}/{data['slot']}~{data['redraw']}"
        return Ended(key, data["params"], "duplicate", score, started_at=at, ended_at=at)

    def records(self, strategy: str) -> list[TrialRecord]:
        """Finished search trials of a strategy, in the order they ended."""
        return self._by_strategy[strategy]

    def ranked(self, strategy: str) -> list[TrialRecord]:
        """Complete search trials of a strategy, best score first; the earlier slot where scores are equal."""
        return sorted((r for r in self.records(strategy) if is_ranked(r)), key=self._place)

    def best(self, strategy: str) -> TrialRecord | None:
        """The first of `ranked`; None where nothing completed."""
        return self._best.get(strategy)

    def _place(self, record: TrialRecord) -> tuple[float, int]:
        sign = -1 if direction(self.objective) == "maximize" else 1
        return sign * (record.score or 0.0), record.slot

    def same_config(self, config: TrialConfig) -> TrialRecord | None:
        """The first finished search trial of this configuration, if there is one."""
        return self._by_config.get(config)


def is_ranked(record: TrialRecord) -> bool:
    """Whether a trial has a score that counts."""
    return record.state == "complete" and record.score is not None


def open_trials(events: Iterable[Event]) -> list[tuple[str, int]]:
    """(trial_id, attempt) of every trial that began and has no end in the log."""
    found: dict[tuple[str, int], None] = {}
    for event in events:
        if event.kind == "trial_started":
            found[event.data["trial_id"], event.data["attempt"]] = None
        elif event.kind in ("trial_finished", "trial_interrupted"):
            found.pop((event.data["trial_id"], event.data["attempt"]), None)
    return list(found)


def cut_off(trial_id: str, attempt: int) -> dict[str, Any]:
    """What `trial_interrupted` says of a trial that the coordinator's own end cut off: no attempt is counted."""
    return {"trial_id": trial_id, "attempt": attempt, "reason": "coordinator ended", "requeued": True}
