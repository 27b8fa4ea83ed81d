"""Copy a study's search to Optuna's storage: `optuna.log` in the study's folder, or the database that `storage` names.

The copy holds one Optuna study for each strategy, for Optuna's own tools (`optuna-dashboard runs/NAME/optuna.log`). It
is made from the event log by a thread, so that no trial waits for it, and made again if it does not fit the log. The
studies that are asked for configurations live in memory, in `strategy_search`.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import math
import os
import queue
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from harness.config.space import SearchSpace
from harness.errors import HarnessError
from harness.results.metrics import direction
from harness.results.paths import home
from harness.results.study_state import EndedTrial
from harness.safe_text import masked
from harness.search.optuna_params import KEY, to_frozen_trial

Location = Path | str  # a journal file, or the address of a database
ID = "harness.study_id"  # attribute of an Optuna study: the study that it is a copy of
LOCK_SECONDS = 2.0  # Optuna holds a journal's lock for a millisecond; an older lock was left by a killed process


@contextlib.contextmanager
def open_storage(location: Location, *, create: bool = True) -> Iterator[BaseStorage]:
    """Open the storage, and close it when the block ends.

    Args:
        create: create a storage that is missing, and replace a journal that cannot be read. If it is False, nothing is
            written, and both are errors.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if isinstance(location, Path):
        yield _writable(location) if create else _journal(location)
        return
    options = {"connect_args": {"timeout": 60}} if location.startswith("sqlite") else {}
    locks = home() / "locks"
    locks.mkdir(exist_ok=True)
    with FileLock(locks / "optuna.lock"):  # if several processes create the tables at once, only one succeeds
        storage = RDBStorage(location, engine_kwargs=options, skip_table_creation=not create)
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _journal(path: Path) -> JournalStorage:
    """Read an existing journal to its end."""
    if not path.exists():  # the backend would create the file
        raise FileNotFoundError(path)
    return JournalStorage(JournalFileBackend(str(path)))


def _writable(path: Path) -> JournalStorage:
    """Open a journal for writing; remove the lock and the half line of a killed process; replace an unreadable journal.

    Optuna waits half a minute for such a lock, and appends to the half line, which makes that line unreadable.
    """
    for lock in path.parent.glob(f"{path.name}.lock*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - lock.lstat().st_mtime > LOCK_SECONDS:
                lock.unlink()
    if path.exists():
        content = path.read_bytes()
        lines = content[: content.rfind(b"\n") + 1]  # without a half line
        if lines != content:
            os.truncate(path, len(lines))
        try:
            json.loads(lines[lines.rfind(b"\n", 0, -1) + 1 :] or b"{}")  # Optuna ignores a damaged last line
            return _journal(path)
        except Exception:  # of JSON, of Optuna, a missing key: lines that Optuna did not write fail in many ways
            path.unlink()
    return JournalStorage(JournalFileBackend(str(path)))


def study_name(study: str, strategy: str) -> str:
    """Return the name of a strategy's Optuna study."""
    return f"{study}/{strategy}"


def keys_by_strategy(ended: Iterable[tuple[str, EndedTrial]]) -> dict[str, list[str]]:
    """Return the keys of ended trials, by strategy."""
    keys: dict[str, list[str]] = defaultdict(list)
    for strategy, trial in ended:
        keys[strategy].append(trial.key)
    return keys


def find_fault(
    location: Location, study: str, wanted: Mapping[str, Collection[str]], *, running: bool = False
) -> str | None:
    """Return the first difference between the copy and the log, in a few words; None if there is none.

    Trials are compared by their keys, not by their values.

    Args:
        wanted: the keys of all ended trials in the log, by strategy.
        running: the study is running. The copy may then be ahead of the events that were read, or behind them, so it
            is only checked that it can be read.

    Raises:
        Exception: the storage cannot be read; its kind depends on the storage and the damage.
    """
    with open_storage(location, create=False) as storage:
        names = set(optuna.get_all_study_names(storage))
        for strategy, expected in wanted.items():
            name = study_name(study, strategy)
            trials: list[FrozenTrial] = []
            if name in names:
                trials = optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)
            held = [trial.user_attrs.get(KEY) for trial in trials]
            if not running and (surplus := _surplus(held, expected)):
                return f"{name}: {surplus}"
            missing = [key for key in expected if key not in set(held)]
            if not running and missing:
                return f"{name}: {len(missing)} of {len(expected)} ended trials are missing, {missing[0]} first"
    return None


def remove(location: Location, study: str, identity: str) -> None:
    """Delete a study's copy; a study of the same name with another identity stays."""
    with open_storage(location) as storage:
        for summary in optuna.get_all_study_summaries(storage):
            if summary.study_name.rpartition("/")[0] == study and summary.user_attrs.get(ID) == identity:
                optuna.delete_study(study_name=summary.study_name, storage=storage)


def _surplus(held: Collection[str | None], wanted: Collection[str]) -> str | None:
    """Name a trial that the log does not hold, or that is there twice; None if there is none."""
    known = set(wanted)
    for key, count in Counter(held).items():
        if key is None or key not in known:
            return f"it holds {key or 'a trial without a name'}, which the log does not hold"
        if count > 1:
            return f"{key} is there {count} times"
    return None


class OptunaMirror:
    """A thread that copies ended trials to the storage, each in one write.

    Running trials are not copied: otherwise a trial would seem to run forever after the process was killed. The caller
    holds the study's lock, so that no other process writes.

    Args:
        say: is called with a message for the user if the storage cannot be written.
        attributes: user attributes of each Optuna study. One of them is ID, because names may repeat.
        run_of: returns the MLflow run of a trial by the trial's key; None if it is not known.
    """

    def __init__(
        self,
        location: Location,
        study: str,
        spaces: Iterable[SearchSpace],
        objective: str,
        say: Callable[[str], None],
        *,
        attributes: Mapping[str, Any],
        run_of: Callable[[str], str | None] = lambda key: None,
    ) -> None:
        self._location, self._study, self._objective, self._say = location, study, objective, say
        self._spaces = {str(space.strategy): space for space in spaces}
        self._attributes, self._run_of = attributes, run_of
        self._waiting: queue.SimpleQueue[tuple[str, EndedTrial] | None] = queue.SimpleQueue()
        self._logged: Mapping[str, Collection[str]] = {}  # keys in the log when the thread started
        self._until = math.inf
        self._thread = threading.Thread(target=self._follow, name="optuna", daemon=True)

    def start(self, ended: Iterable[tuple[str, EndedTrial]]) -> None:
        """Write the (strategy, trial) pairs that the storage lacks, and from then on those that `add` gets."""
        ended = list(ended)
        self._logged = keys_by_strategy(ended)
        for strategy, trial in ended:
            self.add(strategy, trial)
        self._thread.start()

    def add(self, strategy: str, ended: EndedTrial) -> None:
        """Queue a trial that ended; nothing happens if the storage holds it already."""
        self._waiting.put((strategy, ended))

    def finish(self, within: float = math.inf) -> None:
        """Write the queued trials, or as many as `within` seconds allow; the next session writes the rest."""
        self._until = time.monotonic() + within
        self._waiting.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def _follow(self) -> None:
        try:
            with open_storage(self._location) as storage:
                studies = {strategy: self._open(storage, strategy) for strategy in self._spaces}
                present = {
                    strategy: {trial.user_attrs.get(KEY) for trial in study.get_trials(deepcopy=False)}
                    for strategy, study in studies.items()
                }
                while (item := self._waiting.get()) is not None and time.monotonic() < self._until:
                    strategy, ended = item
                    if ended.key not in present[strategy]:
                        present[strategy].add(ended.key)
                        studies[strategy].add_trial(self._trial(strategy, ended))
        # The log holds everything, so a copy that fails must not end the study.
        except Exception as error:
            where = describe_location(self._location)
            text = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
            self._say(
                f"{where} did not store everything ({masked(' '.join(text.split()))[:300]}). The study goes on; "
                f"`harness sync {self._study}` writes what is missing."
            )

    def _open(self, storage: BaseStorage, strategy: str) -> optuna.Study:
        """Open the strategy's Optuna study; create it, or create it again if it holds trials that the log does not."""
        name = study_name(self._study, strategy)

        def create() -> optuna.Study:
            return optuna.create_study(storage=storage, study_name=name, direction=direction(self._objective))

        exists = name in optuna.get_all_study_names(storage)
        study = optuna.load_study(study_name=name, storage=storage) if exists else create()
        held = [trial.user_attrs.get(KEY) for trial in study.get_trials(deepcopy=False)]
        attributes = study.user_attrs
        foreign = attributes.get(ID) != self._attributes[ID] and bool(held or ID in attributes)
        if foreign and not isinstance(self._location, Path):
            raise HarnessError(
                f"it holds another study named {name}; name another storage, or start this study under another name "
                "(AS=newname)"
            )
        if foreign or _surplus(held, self._logged.get(strategy, ())):
            optuna.delete_study(study_name=name, storage=storage)
            study, attributes = create(), {}
        if study.metric_names != [self._objective]:
            # unwrap avoids the warning that the method is experimental. A filter for it in this thread would race with
            # the filters of other threads.
            inspect.unwrap(optuna.Study.set_metric_names)(study, [self._objective])
        for key, value in {**self._attributes, "strategy": strategy, "direction": direction(self._objective)}.items():
            if attributes.get(key) != value:
                study.set_user_attr(key, value)
        return study

    def _trial(self, strategy: str, ended: EndedTrial) -> FrozenTrial:
        """Make Optuna's trial, with the times of the event log and user attributes to sort by."""
        trial = to_frozen_trial(self._spaces[strategy], ended, self._objective)
        if ended.started_at is not None and ended.ended_at is not None:
            trial.datetime_start, trial.datetime_complete = _local(ended.started_at), _local(ended.ended_at)
        attributes: dict[str, Any] = {KEY: ended.key, "state": ended.state, "mlflow_run_id": self._run_of(ended.key)}
        if ended.record is not None:
            record = ended.record
            attributes |= {
                "config_key": record.config.key(),
                "seconds_alone": record.seconds_alone,
                "best_epoch": record.best_epoch,
                "trainable_share": record.trainable_share,
                "reason": record.reason,
            }
        trial.user_attrs = {name: value for name, value in attributes.items() if value is not None}
        return trial


def describe_location(location: Location) -> str:
    """Return the name of a storage for messages, without a password."""
    return location.name if isinstance(location, Path) else f"The storage {masked(location)}"


def _local(at: str) -> datetime:
    """Convert a time of the event log to the form of Optuna's times: in this machine's zone, without naming it."""
    return datetime.fromisoformat(at).astimezone().replace(tzinfo=None)
