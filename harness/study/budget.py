"""How long the search may go on, so that the confirmation still fits into `time:`."""

from __future__ import annotations

import time

from harness.config.study import StudyConfig
from harness.study.history import History


class Budget:
    """Wall-clock bound of a study over all its sessions.

    Args:
        started: when this session started, on the monotonic clock.
    """

    def __init__(self, study: StudyConfig, history: History, started: float) -> None:
        self._study, self._history, self._started = study, history, started

    def used_up(self) -> bool:
        """Whether another search trial would eat into the time the confirmation needs."""
        if self._study.time is None:
            return False
        spent = self._history.seconds + time.monotonic() - self._started
        return spent + self.confirmation_seconds() >= self._study.time

    def confirmation_seconds(self) -> float:
        """What the confirmation will probably take: its trials, each as long as its strategy's slowest was."""
        runs = (self._study.confirmation.top + 1) * self._study.confirmation.seeds
        total = 0.0
        for strategy in self._study.strategies:
            done = [record for record in self._history.records(strategy) if record.state == "complete"]
            seconds = [r.seconds_alone if r.seconds_spent is None else r.seconds_spent for r in done]
            total += runs * max(seconds, default=0.0)
        return total / self._study.workers
