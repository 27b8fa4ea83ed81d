"""Send the event log to MLflow in a thread while a study runs, so that no trial waits for tracking."""

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

RETRY_SECONDS = 15.0  # between two tries if MLflow does not answer


class Tracker:
    """A thread that sends the event log to MLflow. If MLflow does not answer, the study goes on and it retries."""

    def __init__(
        self, name: str, description: str, address: str, folder: StudyFolder, log: EventLog, say: Callable[[str], None]
    ) -> None:
        """Prepare the thread; `start` starts it.

        Args:
            name: name of the study.
            description: the study's description.
            address: of the MLflow server or store, see `harness.tracking.address.tracking_address`.
            folder: folder of the study; its report is logged as artifacts.
            log: the log to send.
            say: called with a message for the user if MLflow fails.
        """
        self._log, self._say, self._name, self._address = log, say, name, address
        self._bridge = MlflowBridge(name, description, address, folder)
        self._lock = threading.Lock()  # the bridge is used by one thread at a time
        self._news = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="tracker", daemon=True)
        self._warned = False
        self._reached = self._ending = self._within = math.inf

    def start(self) -> None:
        """Follow the log from now on."""
        self._thread.start()

    def wake(self) -> None:
        """Tell the thread that the log has new events."""
        self._news.set()

    def finish(self, within: float = math.inf) -> None:
        """Send the remaining events and the report; call `say` if some could not be sent.

        Args:
            within: seconds for the remaining events after MLflow was reached. The next session or `harness sync` sends
                those that take longer.
        """
        self._within, self._ending = within, time.monotonic()
        self._ended.set()
        self._news.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._catch_up(retry_now=True):
            if self._bridge.left():
                self._say(f"MLflow does not have all events yet: {self._later()}.")
            self._try(lambda: self._bridge.log_artifacts())

    def log_model(
        self, model: nn.Module, example: NDArray[np.float32], metadata: dict[str, Any], record: TrialRecord
    ) -> str | None:
        """Log a model and return its URI; None if MLflow could not store it."""
        if not self._catch_up(retry_now=True):
            return None
        uris: list[str] = []
        self._try(lambda: uris.append(self._bridge.log_model(model, example, metadata, record.trial_id)))
        return uris[0] if uris else None

    def holds_model(self, uri: str) -> bool:
        """Whether a logged model is still in MLflow; True if MLflow does not answer."""
        held: list[bool] = []
        self._try(lambda: held.append(self._bridge.holds_model(uri)))
        return held[0] if held else True

    def run_of(self, key: str) -> str | None:
        """Return the run id of a trial (`trial_id#attempt`) if this session has used the run; MLflow is not called."""
        return self._bridge.run_ids.get(key)

    def _follow(self) -> None:
        while not self._ended.is_set():
            self._news.wait()
            self._news.clear()
            if not self._ended.is_set() and not self._catch_up():
                self._ended.wait(RETRY_SECONDS)
                self._news.set()

    def _catch_up(self, *, retry_now: bool = False) -> bool:
        return self._try(lambda: self._bridge.catch_up(list(self._log), retry_now=retry_now, should_stop=self._is_late))

    def _is_late(self) -> bool:
        now = time.monotonic()
        self._reached = min(self._reached, now)  # before that, a new database may be created, which takes seconds
        return now > max(self._reached, self._ending) + self._within

    def _try(self, send: Callable[[], object]) -> bool:
        """Call `send`; return whether it succeeded, and report only the first error of the session."""
        with self._lock:
            try:
                send()
            # The log holds everything, so no error of MLflow may end the study.
            except Exception as error:
                if not self._warned:
                    where = masked(self._address)
                    self._say(
                        f"MLflow at {where} did not store everything ({_describe(error)}). "
                        f"The study goes on; {self._later()}."
                    )
                self._warned = True
                return False
        return True

    def _later(self) -> str:
        return f"`harness sync {self._name}` sends what is missing, and so does the next `make study`"


def _describe(error: Exception) -> str:
    """Return an error as text. Errors of other libraries get their type's name, and may contain a password."""
    return str(error).rstrip(".") if isinstance(error, HarnessError) else masked(f"{type(error).__name__}: {error}")
