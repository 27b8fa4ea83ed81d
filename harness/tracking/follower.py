"""MLflow beside a running study: a thread that brings it up to date, so that no trial waits for tracking."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from harness.errors import HarnessError
from harness.results.events import EventLog
from harness.results.paths import StudyFolder
from harness.results.records import TrialRecord
from harness.safe_text import masked
from harness.tracking.mlflow_runs import MlflowBridge

RETRY_SECONDS = 15.0


class Tracker:
    """Sends the event log on to MLflow; when MLflow does not answer, the study goes on and it tries again."""

    def __init__(
        self, name: str, description: str, address: str, folder: StudyFolder, log: EventLog, say: Callable[[str], None]
    ) -> None:
        """Take the values that MLflow is told of the study, its log, and who is told of failures.

        Args:
            address: of the MLflow server or store, see `harness.tracking.address.tracking_address`.
            folder: the study's, whose report is logged as artifacts.
            say: takes a sentence that a person should read.
        """
        self._log, self._say, self._name, self._address = log, say, name, address
        self._bridge = MlflowBridge(name, description, address, folder)
        self._one_at_a_time = threading.Lock()
        self._news = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="tracker", daemon=True)
        self._warned = False
        self._reached = self._ending = self._within = math.inf

    def start(self) -> None:
        """Follow the log from now on."""
        self._thread.start()

    def wake(self) -> None:
        """There is something new in the log."""
        self._news.set()

    def finish(self, within: float = math.inf) -> None:
        """Send what is left and the report; says so where MLflow did not get everything.

        Args:
            within: seconds for what is left, once MLflow is reached; what takes longer goes with the next session, or
                `harness sync`.
        """
        self._within, self._ending = within, time.monotonic()
        self._ended.set()
        self._news.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._catch_up(patient=True):
            if self._bridge.left():
                self._say(f"MLflow has not been given everything yet: {self._later()}.")
            self._try(lambda: self._bridge.log_artifacts())

    def log_model(
        self, model: nn.Module, example: NDArray[np.float32], metadata: dict[str, Any], record: TrialRecord
    ) -> str | None:
        """The URI of the logged model; None where MLflow could not take it."""
        if not self._catch_up(patient=True):
            return None
        uris: list[str] = []
        self._try(lambda: uris.append(self._bridge.log_model(model, example, metadata, record.trial_id)))
        return uris[0] if uris else None

    def holds_model(self, uri: str) -> bool:
        """Whether a logged model is still in MLflow; True where MLflow cannot be asked."""
        held: list[bool] = []
        self._try(lambda: held.append(self._bridge.holds_model(uri)))
        return held[0] if held else True

    def run_of(self, key: str) -> str | None:
        """The run of a trial (`trial_id#attempt`), if this session has sent something of it; asks nobody."""
        return self._bridge.run_ids.get(key)

    def _follow(self) -> None:
        while not self._ended.is_set():
            self._news.wait()
            self._news.clear()
            if not self._ended.is_set() and not self._catch_up():
                self._ended.wait(RETRY_SECONDS)
                self._news.set()

    def _catch_up(self, *, patient: bool = False) -> bool:
        return self._try(lambda: self._bridge.catch_up(list(self._log), patient=patient, enough=self._is_late))

    def _is_late(self) -> bool:
        now = time.monotonic()
        self._reached = min(self._reached, now)  # a new database is made first, which takes seconds of its own
        return now > max(self._reached, self._ending) + self._within

    def _try(self, send: Callable[[], object]) -> bool:
        with self._one_at_a_time:
            try:
                send()
            # Whatever goes wrong here, the log holds everything and a trial is worth more than its display.
            except Exception as error:
                if not self._warned:
                    where = masked(self._address)
                    self._say(
                        f"MLflow at {where} did not store everything ({_said(error)}). "
                        f"The study goes on; {self._later()}."
                    )
                self._warned = True
                return False
        return True

    def _later(self) -> str:
        return f"`harness sync {self._name}` sends what is missing, and so does the next `make study`"


def _said(error: Exception) -> str:
    """Our own errors are sentences; any other is named with its kind, and may quote an address."""
    return str(error).rstrip(".") if isinstance(error, HarnessError) else masked(f"{type(error).__name__}: {error}")
