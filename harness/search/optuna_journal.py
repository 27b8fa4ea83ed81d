"""Optuna's copy of a study's search: `optuna.log` in the study's folder, or the database that `storage` names.

It holds one Optuna study for each strategy, for Optuna's own tools (`optuna-dashboard runs/NAME/optuna.log`), and is a
projection of the event log: it is written while nobody waits, and made again where it does not fit the log.
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
from harness.search.optuna_params import KEY, frozen

Place = Path | str  # a journal file, or the address of a database
ID = "harness.study_id"  # attribute of an Optuna study: whose copy it is
LOCK_SECONDS = 2.0  # Optuna holds the lock of a journal for a millisecond; an older one is of a killed process


@contextlib.contextmanager
def opened(place: Place, *, create: bool = True) -> Iterator[BaseStorage]:
    """The storage, closed again at the end.

    Args:
        create: make what is missing, and a journal anew that cannot be read; without it nothing is written, and both
            are errors.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if isinstance(place, Path):
        yield _writable(place) if create else _journal(place)
        return
    options = {"connect_args": {"timeout": 60}} if place.startswith("sqlite") else {}
    locks = home() / "locks"
    locks.mkdir(exist_ok=True)
    with FileLock(locks / "optuna.lock"):  # of processes that create the tables at once, all but one would fail
        storage = RDBStorage(place, engine_kwargs=options, skip_table_creation=not create)
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _journal(path: Path) -> JournalStorage:
    """A journal that is there, read to its end."""
    if not path.exists():  # the backend would make the file
        raise FileNotFoundError(path)
    return JournalStorage(JournalFileBackend(str(path)))


def _writable(path: Path) -> JournalStorage:
    """The journal without what a killed process left: its lock, and half of a line; anew if it cannot be read.

    Optuna waits half a minute for such a lock, and appends to half a line, which nobody could read then.
    """
    for lock in path.parent.glob(f"{path.name}.lock*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - lock.lstat().st_mtime > LOCK_SECONDS:
                lock.unlink()
    if path.exists():
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            os.truncate(path, len(whole))
        try:
            json.loads(whole[whole.rfind(b"\n", 0, -1) + 1 :] or b"{}")  # Optuna reads over a last line that is damaged
            return _journal(path)
        except Exception:  # JSON's, Optuna's, of a missing key: lines that are none of Optuna's fail in many ways
            path.unlink()
    return JournalStorage(JournalFileBackend(str(path)))


def study_name(study: str, strategy: str) -> str:
    """The name of a strategy's Optuna study."""
    return f"{study}/{strategy}"


def keys(ended: Iterable[tuple[str, EndedTrial]]) -> dict[str, list[str]]:
    """The keys of ended trials, by strategy."""
    found: dict[str, list[str]] = defaultdict(list)
    for strategy, one in ended:
        found[strategy].append(one.key)
    return found


def fault(place: Place, study: str, wanted: Mapping[str, Collection[str]], *, running: bool = False) -> str | None:
    """What the copy lacks of the log, or has beside it, in a few words; None: nothing. Values are not compared.

    Args:
        wanted: the keys of all ended trials in the log, by strategy.
        running: the study is at work, so that the copy may be ahead of the log as it was read, or behind it.

    Raises:
        Exception: of many kinds, where the storage cannot be read.
    """
    with opened(place, create=False) as storage:
        there = set(optuna.get_all_study_names(storage))
        for strategy, expected in wanted.items():
            name = study_name(study, strategy)
            trials: list[FrozenTrial] = []
            if name in there:
                trials = optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)
            held = [trial.user_attrs.get(KEY) for trial in trials]
            if not running and (odd := _odd(held, expected)):
                return f"{name}: {odd}"
            missing = [key for key in expected if key not in set(held)]
            if not running and missing:
                return f"{name}: {len(missing)} of {len(expected)} ended trials are missing, {missing[0]} first"
    return None


def remove(place: Place, study: str, identity: str) -> None:
    """Delete a study's copy, and no study of the same name that is somebody else's."""
    with opened(place) as storage:
        for summary in optuna.get_all_study_summaries(storage):
            if summary.study_name.rpartition("/")[0] == study and summary.user_attrs.get(ID) == identity:
                optuna.delete_study(study_name=summary.study_name, storage=storage)


def _odd(held: Collection[str | None], wanted: Collection[str]) -> str | None:
    """A trial that the log does not explain; None: there is none."""
    known = set(wanted)
    for key, count in Counter(held).items():
        if key is None or key not in known:
            return f"it holds {key or 'a trial without a name'}, which the log does not"
        if count > 1:
            return f"{key} is there {count} times"
    return None


class OptunaMirror:
    """Copies ended trials to the storage, each in one write, in a thread of its own.

    Trials that run are not in it: a copy that a kill leaves behind has none that would seem to run for ever. The caller
    holds the study's lock, so that nobody else writes.

    Args:
        attributes: of each Optuna study; among them ID, which tells the study from others of its name.
        run_of: the MLflow run of a trial, by the trial's key, where it is known.
    """

    def __init__(
        self,
        place: Place,
        study: str,
        spaces: Iterable[SearchSpace],
        objective: str,
        say: Callable[[str], None],
        *,
        attributes: Mapping[str, Any],
        run_of: Callable[[str], str | None] = lambda key: None,
    ) -> None:
        self._place, self._study, self._objective, self._say = place, study, objective, say
        self._spaces = {str(space.strategy): space for space in spaces}
        self._attributes, self._run_of = attributes, run_of
        self._waiting: queue.SimpleQueue[tuple[str, EndedTrial] | None] = queue.SimpleQueue()
        self._known: Mapping[str, Collection[str]] = {}  # keys of the log when the thread started
        self._until = math.inf
        self._thread = threading.Thread(target=self._follow, name="optuna", daemon=True)

    def start(self, ended: Iterable[tuple[str, EndedTrial]]) -> None:
        """Bring the storage to what the log says, (strategy, trial) by trial, and follow from then on."""
        ended = list(ended)
        self._known = keys(ended)
        for strategy, one in ended:
            self.add(strategy, one)
        self._thread.start()

    def add(self, strategy: str, ended: EndedTrial) -> None:
        """Take a trial that ended; one that the storage has is left alone."""
        self._waiting.put((strategy, ended))

    def finish(self, within: float = math.inf) -> None:
        """Write what is left, or as much of it as `within` seconds allow; the next session writes the rest."""
        self._until = time.monotonic() + within
        self._waiting.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def _follow(self) -> None:
        try:
            with opened(self._place) as storage:
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
        # The log holds everything; a trial is worth more than its copy.
        except Exception as error:
            where = self._place.name if isinstance(self._place, Path) else f"The storage {masked(self._place)}"
            text = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
            self._say(
                f"{where} did not take everything ({masked(' '.join(text.split()))[:300]}). The study goes on; "
                f"`harness sync {self._study}` writes what is missing."
            )

    def _open(self, storage: BaseStorage, strategy: str) -> optuna.Study:
        """The strategy's Optuna study, made anew where it holds what the log does not."""
        name = study_name(self._study, strategy)

        def made() -> optuna.Study:
            return optuna.create_study(storage=storage, study_name=name, direction=direction(self._objective))

        there = name in optuna.get_all_study_names(storage)
        study = optuna.load_study(study_name=name, storage=storage) if there else made()
        held = [trial.user_attrs.get(KEY) for trial in study.get_trials(deepcopy=False)]
        attributes = study.user_attrs
        foreign = attributes.get(ID) != self._attributes[ID] and bool(held or ID in attributes)
        if foreign and not isinstance(self._place, Path):
            raise HarnessError(
                f"it holds another study named {name}; name another storage, or start this study under another name "
                "(AS=newname)"
            )
        if foreign or _odd(held, self._known.get(strategy, ())):
            optuna.delete_study(study_name=name, storage=storage)
            study, attributes = made(), {}
        if study.metric_names != [self._objective]:
            # Without its warning that it is experimental, which another thread's filters of warnings would race with.
            inspect.unwrap(optuna.Study.set_metric_names)(study, [self._objective])
        for key, value in {**self._attributes, "strategy": strategy, "direction": direction(self._objective)}.items():
            if attributes.get(key) != value:
                study.set_user_attr(key, value)
        return study

    def _trial(self, strategy: str, ended: EndedTrial) -> FrozenTrial:
        """A trial with the times of the event log and what is good to sort by."""
        trial = frozen(self._spaces[strategy], ended, self._objective)
        if ended.started_at is not None and ended.ended_at is not None:
            trial.datetime_start, trial.datetime_complete = _local(ended.started_at), _local(ended.ended_at)
        facts: dict[str, Any] = {KEY: ended.key, "state": ended.state, "mlflow_run_id": self._run_of(ended.key)}
        if ended.record is not None:
            record = ended.record
            facts |= {
                "config_key": record.config.key(),
                "seconds_alone": record.seconds_alone,
                "best_epoch": record.best_epoch,
                "trainable_share": record.trainable_share,
                "reason": record.reason,
            }
        trial.user_attrs = {name: value for name, value in facts.items() if value is not None}
        return trial


def _local(at: str) -> datetime:
    """A time of the event log as Optuna has times: of this machine's zone, without naming it."""
    return datetime.fromisoformat(at).astimezone().replace(tzinfo=None)
