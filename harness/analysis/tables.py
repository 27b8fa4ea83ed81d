"""Flat pandas tables made from the records of trials. Every column is present even if there are no rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.config.trial import TrialConfig
from harness.results.metrics import METRICS
from harness.results.records import TrialRecord
from harness.results.study_state import of_kind

CONFIG_COLUMNS = [field.name for field in dataclasses.fields(TrialConfig) if field.name != "strategy"]
TRIAL_COLUMNS = [
    *("trial_id", "strategy", "slot", "state", "score", "best_epoch", "epochs_done", "seconds_alone"),
    *CONFIG_COLUMNS,
    *("trainable_parameters", "total_parameters", "trainable_share", "seed", "attempt", "device"),
    *(
        "device_memory_bytes",
        "precision",
        "micro_batch",
        "l2",
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


def trials(records: Iterable[TrialRecord]) -> pd.DataFrame:
    """Return one row for each finished trial of the search: its configuration and its result."""
    own = of_kind(records, "search")
    configs = [record.config for record in own]
    table: dict[str, list[Any]] = {name: [getattr(config, name) for config in configs] for name in CONFIG_COLUMNS}
    table["epochs_done"] = [len(record.epochs) for record in own]
    table["warnings"] = ["; ".join(record.warnings) for record in own]
    table |= {name: [getattr(record, name) for record in own] for name in TRIAL_COLUMNS if name not in table}
    numbers = ("score", "best_epoch", "backbone_lr", "device_memory_bytes", "micro_batch", "l2")
    return _frame(table, TRIAL_COLUMNS, numbers=numbers)


def epochs(records: Iterable[TrialRecord]) -> pd.DataFrame:
    """Return one row for each epoch of each finished trial, of the search and of what follows it."""
    records = list(records)
    each = [epoch for record in records for epoch in record.epochs]
    times = [len(record.epochs) for record in records]
    table: dict[str, Any] = {
        name: np.repeat(np.array([getattr(record, name) for record in records], dtype=object), times)
        for name in ("trial_id", "kind", "strategy")
    }
    table["slot"] = np.repeat(np.array([record.slot for record in records], dtype=np.int64), times)
    table["epoch"] = np.array([epoch.epoch for epoch in each], dtype=np.int64)
    for name in ("train_loss", "head_lr", "backbone_lr", "seconds"):
        table[name] = np.array([getattr(epoch, name) for epoch in each], dtype=np.float64)
    for name in ("loss", *METRICS):
        table[f"validation_{name}"] = np.array([epoch.validation.get(name) for epoch in each], dtype=np.float64)
    return pd.DataFrame(table, columns=EPOCH_COLUMNS)


def _frame(
    rows: list[dict[str, Any]] | dict[str, list[Any]], columns: list[str], numbers: Sequence[str] = ()
) -> pd.DataFrame:
    """Make a table of rows, or of columns, which is much faster if there are many rows."""
    if isinstance(rows, dict) and not rows[columns[0]]:
        rows = []  # pandas would give empty lists a numeric type
    frame = pd.DataFrame(rows, columns=columns)
    for name in numbers:  # a column that holds only None would not be numeric
        frame[name] = pd.to_numeric(frame[name])
    return frame
