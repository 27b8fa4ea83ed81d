"""`optuna.db`: one Optuna study for each strategy, a projection of the event log, written while nobody waits."""

from __future__ import annotations

import math
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import optuna
from filelock import FileLock
from optuna.trial import TrialState

from harness.config.space import SearchSpace
from harness.results.metrics import direction
from harness.results.study_state import EndedTrial
from harness.search.optuna_params import KEY
from harness.study.search import frozen


def open_storage(path: Path) -> optuna.storages.RDBStorage:
    """The Optuna database, made under a lock and renamed into place where it is missing (creation races)."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with FileLock(path.with_suffix(".creating.lock")):
        if not path.exists():
            temporary = path.with_name(f".{path.name}.partial")
            temporary.unlink(missing_ok=True)
            storage = optuna.storages.RDBStorage(_url(temporary))
            storage.remove_session()
            storage.engine.dispose()
            with sqlite3.connect(temporary) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
            connection.close()
            for suffix in ("-wal", "-shm"):
                temporary.with_name(temporary.name + suffix).unlink(missing_ok=True)
            os.replace(temporary, path)  # noqa: PTH105 - the atomic rename is the point
    return optuna.storages.RDBStorage(_url(path), engine_kwargs={"connect_args": {"timeout": 60}})


def _url(path: Path) -> str:
    return f"sqlite:///{path}"


class OptunaMirror:
    """Copies ended trials to the database, each in one transaction, in a thread of its own.

    Trials that run are not in it: a database that a kill leaves behind has none that would seem to run for ever.
    """

    def __init__(
        self, path: Path, study: str, spaces: Iterable[SearchSpace], objective: str, say: Callable[[str], None]
    ) -> None:
        self._path, self._study, self._objective, self._say = path, study, objective, say
        self._spaces = {str(space.strategy): space for space in spaces}
        self._waiting: queue.SimpleQueue[tuple[str, EndedTrial] | None] = queue.SimpleQueue()
        self._until = math.inf
        self._thread = threading.Thread(target=self._follow, name="optuna", daemon=True)

    def start(self, ended: Iterable[tuple[str, EndedTrial]]) -> None:
        """Bring the database to what the log says, (strategy, trial) by trial, and follow from then on."""
        for strategy, one in ended:
            self.add(strategy, one)
        self._thread.start()

    def add(self, strategy: str, ended: EndedTrial) -> None:
        """Take a trial that ended; one that the database has is left alone."""
        self._waiting.put((strategy, ended))

    def finish(self, within: float = math.inf) -> None:
        """Write what is left, or as much of it as `within` seconds allow; the next session writes the rest."""
        self._until = time.monotonic() + within
        self._waiting.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def _follow(self) -> None:
        try:
            storage = open_storage(self._path)
            studies = {strategy: self._open(storage, strategy) for strategy in self._spaces}
            present = {
                strategy: {trial.user_attrs.get(KEY) for trial in study.get_trials(deepcopy=False)}
                for strategy, study in studies.items()
            }
            while (item := self._waiting.get()) is not None and time.monotonic() < self._until:
                strategy, ended = item
                if ended.key not in present[strategy]:
                    present[strategy].add(ended.key)
                    studies[strategy].add_trial(frozen(self._spaces[strategy], ended, self._objective))
        # The log holds everything; a trial is worth more than its copy.
        except Exception as error:
            self._say(
                f"optuna.db did not take everything ({type(error).__name__}: {error}). The study goes on; "
                f"`harness sync {self._study}` writes what is missing, `harness doctor {self._study}` says what is "
                "wrong with the database."
            )

    def _open(self, storage: optuna.storages.BaseStorage, strategy: str) -> optuna.Study:
        study = optuna.create_study(
            storage=storage, study_name=f"{self._study}/{strategy}", direction=direction(self._objective),
            load_if_exists=True,
        )  # fmt: skip
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)  # from a version that wrote trials as they began
        return study
