"""Decide how long the search may go on, so that the confirmation still fits into the study's `time`."""

from __future__ import annotations

import time

from harness.config.study import StudyConfig
from harness.results.study_state import StudyState


class Budget:
    """The time limit of a study over all its sessions, in seconds of wall-clock time.

    Args:
        started: when this session started, by `time.monotonic`.
    """

    def __init__(self, study: StudyConfig, state: StudyState, started: float) -> None:
        self._study, self._state, self._started = study, state, started
        self._seen: dict[str, int] = {}  # by strategy: how many finished trials were counted
        self._slowest: dict[str, float] = {}  # by strategy: seconds of the slowest complete trial among them

    def used_up(self) -> bool:
        """Whether another search trial would leave too little time for the confirmation."""
        if self._study.time is None:
            return False
        spent = self._state.seconds + time.monotonic() - self._started
        return spent + self.confirmation_seconds() >= self._study.time

    def confirmation_seconds(self) -> float:
        """Estimate the seconds of the confirmation: its trials are as slow as the slowest search trial."""
        runs = (self._study.confirmation.top + 1) * self._study.confirmation.seeds
        for strategy in self._study.strategies:
            records = self._state.searched(strategy)
            done = [record for record in records[self._seen.get(strategy, 0) :] if record.state == "complete"]
            self._seen[strategy] = len(records)
            seconds = [r.seconds_alone if r.seconds_spent is None else r.seconds_spent for r in done]
            self._slowest[strategy] = max([self._slowest.get(strategy, 0.0), *seconds])
        return runs * sum(self._slowest.values()) / self._study.workers
