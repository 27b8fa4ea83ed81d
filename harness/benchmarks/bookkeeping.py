"""The time that a trial waits for everything but its training: the real search runs around artificial trials.

Session, slots, sampler, pruner and event log are those of a study, but there is no worker. `optuna.log` and MLflow are
left out, because they are written by threads of their own, for which no trial waits.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from harness.benchmarks.task import SearchWatcher
from harness.config.load import LoadedStudy, parse
from harness.config.space import space
from harness.config.trial import TrialConfig
from harness.results.event_types import SessionStarted, StudyCreated, TrialFinished, TrialStarted
from harness.results.events import EventLog
from harness.results.metrics import METRICS
from harness.results.records import EpochRecord, TrialJob, TrialRecord
from harness.results.trial_id import TrialId
from harness.search.optuna_params import suggest
from harness.study.executors.base import EpochMessage, Handler, Task, Trained, TrainTask
from harness.study.prepare import Prepared, prepare
from harness.study.search_loop import SlotSearch
from harness.study.session import Session
from harness.study.signals import StopRequest
from harness.study.study_files import write_data, write_study

EPOCHS = 10


def bookkeeping(images: Path, trials: int, before: int = 0) -> float:
    """Return the seconds that a trial of ten epochs waits for everything but training, pruning included.

    Args:
        images: a folder of images; nothing is trained on them.
        trials: number of trials that are timed.
        before: number of artificial trials that the study has already finished.
    """
    loaded = _study(images, trials + before)
    prepared = prepare(loaded, ["cpu"], lambda *a: None)
    write_data(prepared)
    write_study(prepared)
    rng = np.random.default_rng(0)
    _write(prepared, before, rng)
    session = _ArtificialSession(prepared, ["cpu"], SearchWatcher(), StopRequest())
    session.rng = rng
    search = _SearchWithoutMirror(session)
    started = time.perf_counter()
    search.run()
    seconds = time.perf_counter() - started
    session.log.close()
    done = len(session.state.finished) - before
    assert done == trials, f"{done} of {trials} trials were filled"
    return seconds / trials


class _ArtificialSession(Session):
    """A session whose trials end at once, with random scores."""

    rng: np.random.Generator
    _task: Task | None = None

    @property
    def places(self) -> int:
        return 1

    def submit(self, task: Task) -> None:
        self._task = task

    def poll(self, handle: Handler) -> None:
        assert isinstance(self._task, TrainTask)  # only the search runs
        job, epochs = self._task.job, []
        for epoch in epochs_of(job.config, self.rng):
            epochs.append(epoch)
            if not handle(EpochMessage(job.trial_id, epoch)):
                break
        handle(Trained(job.trial_id, record_of(job, tuple(epochs))))


class _NoMirror:
    """Replaces the writer of `optuna.log` and writes nothing."""

    def start(self, ended: object) -> None: ...

    def add(self, strategy: str, ended: object) -> None: ...


class _SearchWithoutMirror(SlotSearch):
    def _open_mirror(self) -> Any:
        return _NoMirror()


def epochs_of(config: TrialConfig, rng: np.random.Generator) -> list[EpochRecord]:
    """Return ten epochs whose score rises to a random value."""
    reached = rng.beta(8, 4) * (1 - 0.6 * np.exp(-np.arange(1, EPOCHS + 1) / 2))
    return [
        EpochRecord(
            number,
            1.0 - score,
            {**dict.fromkeys(METRICS, score), "loss": 1.0 - score},
            config.head_lr,
            config.backbone_lr,
            0.1,
        )
        for number, score in enumerate(reached.tolist(), start=1)
    ]


def record_of(job: TrialJob, epochs: tuple[EpochRecord, ...]) -> TrialRecord:
    """Return a complete trial with these epochs, or a pruned one if there are fewer than EPOCHS."""
    best = max(epochs, key=lambda epoch: epoch.validation["accuracy"])
    complete = len(epochs) == EPOCHS
    return TrialRecord(
        job=job,
        state="complete" if complete else "pruned",
        reason=None if complete else "below the median",
        epochs=epochs,
        best_epoch=best.epoch,
        score=best.validation["accuracy"],
        seconds_alone=1.0,
        trainable_parameters=1,
        total_parameters=2,
        device="cpu",
        started_at="2026-01-01T00:00:00+00:00",
    )


def _study(images: Path, trials: int) -> LoadedStudy:
    rate = {"low": 1e-6, "high": 1e-1, "log": True}
    document: dict[str, Any] = {
        "data": {"source": {"folder": str(images)}, "split": {"group": r"slide(\d+)"}},
        "epochs": EPOCHS,
        "search": {
            "head_lr": {**rate, "low": 1e-4},
            "backbone_lr": {**rate, "high": 1e-2},
            "weight_decay": rate,
            "unfreeze_depth": {"low": 1, "high": 5},
            "batchnorm": ["frozen", "fixed_stats", "updated_stats"],
        },
        "objective": "accuracy",
        "batch_size": 16,
        "trials": trials // 2,
        "confirmation": {"seeds": 2},
        "device": "cpu",
        "cache_gb": 0,
    }
    name = f"bookkeeping-{trials}"
    return LoadedStudy(name, parse(document, name), data_replaced=False, path=images / f"{name}.yaml")


def _write(prepared: Prepared, trials: int, rng: np.random.Generator) -> None:
    """Write the log of a study with this number of finished trials."""
    study, log = prepared.study, EventLog(prepared.folder.events)
    document = study.model_dump(mode="json", by_alias=True)
    log.append(StudyCreated(document, prepared.fingerprint))
    log.append(SessionStarted(environment={}, resumed=False))
    for number in range(trials):
        strategy, slot = study.strategies[number % 2], number // 2
        params = {
            "head_lr": 10 ** rng.uniform(-4, -1),
            "backbone_lr": 10 ** rng.uniform(-6, -2),
            "weight_decay": 10 ** rng.uniform(-6, -1),
            "unfreeze_depth": int(rng.integers(1, 6)),
            "batchnorm": str(rng.choice(["frozen", "fixed_stats", "updated_stats"])),
        }
        trial = optuna.trial.FixedTrial(params)
        config = suggest(trial, space(study, strategy))
        job = TrialJob(str(TrialId("search", strategy, slot)), "search", strategy, slot, config, 0, "search")
        record = record_of(job, tuple(epochs_of(config, rng)))
        log.append(TrialStarted(job, redraw=0, params=dict(trial.params)), sync=False)
        log.append(TrialFinished(record), sync=False)
    log.close()
