"""A study's events made by hand: real logs on the disk, no training."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harness.config.trial import TrialConfig
from harness.results.event_types import (
    EpochDone,
    SessionEnded,
    SessionStarted,
    StudyCreated,
    TrialFinished,
    TrialInterrupted,
    TrialStarted,
    VerdictReached,
)
from harness.results.events import Event, EventLog
from harness.results.paths import StudyFolder
from harness.results.records import EpochRecord, Kind, State, TrialJob, TrialRecord

METRICS = ("loss", "accuracy", "balanced_accuracy", "macro_f1")


def _config_of(
    strategy: str = "fine_tuning", backbone: str = "resnet18", depth: int = 3, head_lr: float = 1e-3
) -> TrialConfig:
    """A configuration; feature extraction has no backbone rate."""
    if strategy == "feature_extraction":
        return TrialConfig("feature_extraction", backbone, 0, head_lr, None)
    return TrialConfig("fine_tuning", backbone, depth, head_lr, head_lr / 10, batchnorm="fixed_stats")


class FakeStudy:
    """Writes the events that a coordinator would write."""

    def __init__(self, name: str, *, objective: str = "balanced_accuracy") -> None:
        self.folder = StudyFolder(name)
        self.log = EventLog(self.folder.events)
        if not len(self.log):
            study = {
                "description": "Which adaptation suits small images of stained cells?",
                "objective": objective,
                "weights": "bundled",
                "strategies": ["feature_extraction", "fine_tuning"],
                "trials": 8,
                "epochs": 6,
                "seed": 0,
                "data": {"source": "rendered_cells", "image_size": 64},
                "search": {"head_lr": {"low": 1e-4, "high": 0.1, "log": True}},
                "tracking_uri": None,
            }
            self.log.append(StudyCreated(study, fingerprint={"data digest": "f" * 16}))

    def verdict(self, **changed: Any) -> None:
        """A verdict with the values that the log keeps of one."""
        values = {
            "outcome": "undecided",
            "difference": 0.0,
            "ci95": [-0.1, 0.1],
            "probability_fine_tuning_better": 0.5,
            "equivalence": 0.01,
            "seeds": 2,
            "test_looks": 1,
            "needed": None,
            "test_images": 60,
            "test_groups": None,
            "seconds_alone": {"feature_extraction": 2.0, "fine_tuning": 8.0},
            "cost_ratio": 4.0,
            "from_scratch_gain": None,
            "guessing": 0.5,
            "scores": {
                name: {"mean": 0.8, "ci95": [0.7, 0.9], "learned": True, "rising": None}
                for name in ("feature_extraction", "fine_tuning")
            },
        }
        self.log.append(VerdictReached(1, {**values, **changed}, None, comparisons=[], recommendation=None))

    @property
    def events(self) -> list[Event]:
        return list(self.log)

    def session(self, resumed: bool = False) -> None:
        self.log.append(SessionStarted(environment={}, resumed=resumed))

    def end(self, state: Any = "finished", seconds: float = 12.0) -> None:
        self.log.append(SessionEnded(state, seconds))

    def start(
        self, trial_id: str, config: TrialConfig, *, kind: Kind = "search", slot: int = 1, attempt: int = 1
    ) -> None:
        job = TrialJob(trial_id, kind, config.strategy, slot, config, slot, "search", attempt)
        self.log.append(TrialStarted(job, redraw=0, params={}))

    def epochs(self, trial_id: str, record: TrialRecord) -> None:
        for epoch in record.epochs:
            score = epoch.validation["balanced_accuracy"]
            self.log.append(EpochDone(trial_id, record.attempt, epoch.epoch, score), sync=False)

    def finish(self, record: TrialRecord) -> None:
        self.log.append(TrialFinished(record))

    def trial(self, trial_id: str, config: TrialConfig, *, score: float = 0.7, **changes: Any) -> TrialRecord:
        """A whole trial: started, its epochs, finished."""
        record = _record_of(trial_id, config, score=score, **changes)
        self.start(trial_id, config, kind=record.kind, slot=record.slot, attempt=record.attempt)
        self.epochs(trial_id, record)
        self.finish(record)
        return record

    def interrupt(self, trial_id: str, reason: str = "coordinator ended", attempt: int = 1) -> None:
        cause = "coordinator_ended" if reason == "coordinator ended" else "worker_died"
        self.log.append(TrialInterrupted(trial_id, attempt, cause, reason))


def _record_of(
    trial_id: str,
    config: TrialConfig,
    *,
    score: float | None = 0.7,
    state: State = "complete",
    epochs: int = 3,
    slot: int = 1,
    kind: Kind = "search",
    attempt: int = 1,
    **changes: Any,
) -> TrialRecord:
    """A record whose curve climbs to the score."""
    curve = tuple(
        EpochRecord(
            epoch=i,
            train_loss=1.0 / i,
            validation=dict.fromkeys(METRICS, (score or 0.5) - 0.1 * (epochs - i)),
            head_lr=config.head_lr,
            backbone_lr=config.backbone_lr,
            seconds=1.5,
        )
        for i in range(1, epochs + 1)
    )
    return TrialRecord(
        job=TrialJob(trial_id, kind, config.strategy, slot, config, slot, "search", attempt),
        state=state,
        reason=None if state == "complete" else f"{state} for a test",
        epochs=curve,
        best_epoch=epochs if score is not None else None,
        score=score,
        seconds_alone=4.5,
        trainable_parameters=1000,
        total_parameters=4000,
        device="cpu",
        started_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        **changes,
    )


def _write_data_files(folder: StudyFolder, images: int = 12) -> None:
    """A manifest whose test rows carry no label, and a data card."""
    rows = ["path,label,group,split,sha256"]
    for i in range(images):
        split = ("train", "validation", "test")[i % 3]
        rows.append(f"cells/{i}.png,{'' if split == 'test' else i % 2},slide{i // 4},{split},{i:064x}")
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.manifest.write_text("\n".join(rows) + "\n")
    folder.data_card.write_text(json.dumps({"name": "rendered_cells", "digest": "d" * 64}))


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All state below a folder with a space in its name, and no tracking address from outside."""
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "all runs"))
    monkeypatch.setenv("HARNESS_REPORTS", str(tmp_path / "reports"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "all runs"


@pytest.fixture
def make_study() -> Iterator[Callable[..., FakeStudy]]:
    made: list[FakeStudy] = []

    def make(name: str = "microscopy", **options: Any) -> FakeStudy:
        made.append(FakeStudy(name, **options))
        return made[-1]

    yield make
    for study in made:
        study.log.close()


@pytest.fixture(scope="session")
def config_of() -> Callable[..., TrialConfig]:
    return _config_of


@pytest.fixture(scope="session")
def record_of() -> Callable[..., TrialRecord]:
    return _record_of


@pytest.fixture(scope="session")
def write_data_files() -> Callable[..., None]:
    return _write_data_files


@pytest.fixture
def free_port() -> int:
    return _free_port()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def database(empty_database: Path, state: Path) -> str:
    """The address of a fresh database of this test."""
    from harness.tracking.address import default_address

    address = default_address()
    shutil.copyfile(empty_database, state / "mlflow.db")
    return address


@pytest.fixture
def make_bridge(database: str) -> Callable[..., Any]:
    """A bridge for a study that was made by `make_study`."""

    def make(study: FakeStudy, address: str = database) -> Any:
        from harness.tracking.mlflow_runs import MlflowBridge

        return MlflowBridge(study.folder.name, "Which adaptation suits?", address, study.folder)

    return make
