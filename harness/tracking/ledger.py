"""What later events need to know of earlier ones, so that a projection can be resumed anywhere in the log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.config.trial import TrialConfig
from harness.report.verdict_text import describe
from harness.results.events import Event
from harness.results.metrics import sign_of


def run_key(trial_id: str, attempt: int) -> str:
    """Names one run of one trial: a second attempt after a worker's death is another run."""
    return f"{trial_id}#{attempt}"


def event_key(event: Event) -> str:
    """The key of the run that a trial's event speaks of."""
    return run_key(event.data["trial_id"], event.data.get("attempt", 1))


@dataclass
class Ledger:
    """What later events need to know of earlier ones: roles, attempts, the best of each strategy. Fed in order."""

    objective: str | None = None
    roles: dict[tuple[str, str], str] = field(default_factory=dict)  # (strategy, configuration key) -> role
    verdict: str | None = None  # the sentence, or why there is none
    keys: dict[str, str] = field(default_factory=dict)  # trial_id -> key of its latest attempt
    best: dict[str, float] = field(default_factory=dict)
    finished: int = 0
    sessions: int = 0
    seen: int = 0

    def remember(self, event: Event) -> None:
        """Take one event into account; a second time changes nothing."""
        if event.seq <= self.seen:
            return
        self.seen = event.seq
        data = event.data
        if event.kind == "study_created":
            self.objective = data.get("study", {}).get("objective")
        elif event.kind == "session_started":
            self.sessions += 1
        elif event.kind in ("trial_started", "trial_interrupted", "trial_finished"):
            self.keys[data["trial_id"]] = event_key(event)
            if event.kind == "trial_finished" and data["kind"] == "search":
                self._rank(data["strategy"], data["score"] if data["state"] == "complete" else None)
        elif event.kind == "verdict":
            self.verdict = describe(data, self.objective or "")
        elif event.kind == "confirmation_selected":
            for strategy, chosen in data["configs"].items():
                self._name_roles(strategy, chosen, data.get("look") or 1)

    def role(self, data: Mapping[str, Any]) -> str | None:
        """The role of a confirmation's configuration; None for a trial of the search."""
        if data["kind"] != "confirmation":
            return None
        return self.roles.get((data["strategy"], TrialConfig.from_json(data["config"]).key()))

    def _rank(self, strategy: str, score: float | None) -> None:
        self.finished += 1
        if score is None or self.objective is None:
            return
        sign = sign_of(self.objective)
        self.best[strategy] = max(self.best.get(strategy, score), score, key=lambda value: sign * value)

    def _name_roles(self, strategy: str, chosen: Iterable[Mapping[str, Any]], look: int) -> None:
        rank = 0
        for entry in chosen:
            role = entry["role"]
            if role == "best":
                rank += 1
                role = "best" if rank == 1 else f"best {rank}"
            if look > 1:
                role += f" of look {look}"
            key = (strategy, TrialConfig.from_json(entry["config"]).key())
            self.roles.setdefault(key, role)  # chosen again later, it keeps its first name
