"""From the event log to flat pandas tables; every column is there also when no row is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from harness.config.trial import TrialConfig
from harness.results.events import Event
from harness.results.metrics import METRICS
from harness.results.records import STATES, TrialRecord

CONFIG_COLUMNS = [field.name for field in dataclasses.fields(TrialConfig) if field.name != "strategy"]
TRIAL_COLUMNS = [
    *("trial_id", "strategy", "slot", "state", "score", "best_epoch", "epochs_done", "seconds_alone"),
    *CONFIG_COLUMNS,
    *("trainable_parameters", "total_parameters", "trainable_share", "seed", "attempt", "device"),
    *(
        "device_memory_bytes",
        "precision",
        "seconds_spent",
        "cache_reason",
        "contract_seconds",
        "started_at",
        "warnings",
        "reason",
    ),
]
EPOCH_COLUMNS = [
    *("trial_id", "kind", "strategy", "slot", "epoch", "train_loss", "head_lr", "backbone_lr", "seconds"),
    "validation_loss",
    *(f"validation_{name}" for name in METRICS),
]
CONFIRMATION_COLUMNS = [
    *(
        "trial_id",
        "strategy",
        "config_key",
        "seed_index",
        "state",
        "score",
        "seconds_alone",
        "trainable_share",
        "is_default",
    ),
]
TEST_COLUMNS = ["look", "strategy", "role", "config_key", "seed_index", "predictions", *METRICS]


def records(events: Iterable[Event]) -> list[TrialRecord]:
    """Every finished trial, in the order of finishing; where one was written twice the later counts."""
    latest = {event.data["trial_id"]: event.data for event in events if event.kind == "trial_finished"}
    return [TrialRecord.from_json(data) for data in latest.values()]


def of_kind(found: Iterable[TrialRecord], kind: str) -> list[TrialRecord]:
    """The records of the search, or of the confirmation."""
    return [record for record in found if record.kind == kind]


def config_key(record: TrialRecord) -> str:
    """The configuration's key as the study wrote it: the third part of a confirmation's name."""
    parts = record.trial_id.split("/")
    return parts[2] if record.kind == "confirmation" and len(parts) == 4 else record.config.key()


def trials(found: Iterable[TrialRecord]) -> pd.DataFrame:
    """One row for each finished trial of the search: what was chosen and what came of it."""
    rows = []
    for record in of_kind(found, "search"):
        row: dict[str, Any] = {name: getattr(record.config, name) for name in CONFIG_COLUMNS}
        row |= {name: getattr(record, name) for name in TRIAL_COLUMNS if name not in row and hasattr(record, name)}
        row |= {"epochs_done": len(record.epochs), "warnings": "; ".join(record.warnings)}
        rows.append(row)
    return _frame(rows, TRIAL_COLUMNS, numbers=("score", "best_epoch", "backbone_lr", "device_memory_bytes"))


def epochs(found: Iterable[TrialRecord]) -> pd.DataFrame:
    """One row for each epoch of each finished trial, search and confirmation."""
    rows = [
        {
            "trial_id": record.trial_id,
            "kind": record.kind,
            "strategy": record.strategy,
            "slot": record.slot,
            "epoch": epoch.epoch,
            "train_loss": epoch.train_loss,
            "head_lr": epoch.head_lr,
            "backbone_lr": epoch.backbone_lr,
            "seconds": epoch.seconds,
            **{f"validation_{name}": value for name, value in epoch.validation.items()},
        }
        for record in found
        for epoch in record.epochs
    ]
    return _frame(rows, EPOCH_COLUMNS, numbers=("backbone_lr",))


def confirmations(found: Iterable[TrialRecord], events: Sequence[Event] = ()) -> pd.DataFrame:
    """One row for each run of the confirmation; `is_default` where its configuration is the strategy's default."""
    defaults = {
        (strategy, TrialConfig.from_json(entry["config"]).key())
        for event in events
        if event.kind == "confirmation_selected"
        for strategy, entries in event.data["configs"].items()
        for entry in entries
        if "default" in entry["role"]
    }
    rows = [
        {
            "trial_id": record.trial_id,
            "strategy": record.strategy,
            "config_key": config_key(record),
            "seed_index": record.slot,
            "state": record.state,
            "score": record.score,
            "seconds_alone": record.seconds_alone,
            "trainable_share": record.trainable_share,
            "is_default": (record.strategy, record.config.key()) in defaults,
        }
        for record in of_kind(found, "confirmation")
    ]
    return _frame(rows, CONFIRMATION_COLUMNS, numbers=("score",))


def test_scores(events: Iterable[Event]) -> pd.DataFrame:
    """One row for each model scored on the test split, over all looks."""
    rows = [{**event.data, **event.data["metrics"]} for event in events if event.kind == "test_scored"]
    return _frame(rows, TEST_COLUMNS)


# pytest would take the function for a test where a test file imports it by name.
test_scores.__test__ = False  # type: ignore[attr-defined]


def states(found: Iterable[TrialRecord], strategy: str) -> dict[str, int]:
    """How many trials of this strategy's search ended in each state."""
    ended = [record.state for record in of_kind(found, "search") if record.strategy == strategy]
    return {state: ended.count(state) for state in STATES}


def _frame(rows: list[dict[str, Any]], columns: list[str], numbers: Sequence[str] = ()) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=columns)
    for name in numbers:  # a column of None alone would not be a number
        frame[name] = pd.to_numeric(frame[name])
    return frame
