"""What makes a study the same one: its fingerprint, and what may change without another."""

from __future__ import annotations

import json
from typing import Any

from harness.config.space import backbones
from harness.config.study import StudyConfig
from harness.data.dataset import Dataset
from harness.model import weights
from harness.safe_text import masked
from harness.study.executors.base import WorkerContext

# What may change on an existing study: none of it can change a number that was written.
FREE_TO_CHANGE = (
    "description",
    "report",
    "tracking_uri",
    "storage",
    "trials",
    "time",
    "workers",
    "executor",
    "cache_gb",
    "controlled",
    "data_sizes",
    "shifts",
)


def fingerprint(study: StudyConfig, dataset: Dataset, context: WorkerContext, device: str) -> dict[str, Any]:
    """Everything that can change a number: two runs with equal fingerprints are one study."""
    values = study.model_dump(mode="json", by_alias=True, exclude=set(FREE_TO_CHANGE))
    values["data"].pop("source")  # the digest speaks for the bytes, wherever they lie
    values["data"].pop("wanted")
    values["data"].pop("name")
    values["confirmation"].pop("seeds")
    values.pop("threads")
    values["precision"] = context.precision
    values.pop("weights")
    return values | {
        "data digest": dataset.digest,
        "weights": {backbone: weights.fingerprint(study.weights, backbone) for backbone in backbones(study)},
        "threads": context.threads,
        "device": device.partition(":")[0],
    }


def differences(before: Any, now: Any, where: str = "") -> list[str]:
    """Two fingerprints, field by field: `search.head_lr: was …, is …`."""
    if isinstance(before, dict) and isinstance(now, dict):
        lines = []
        for key in [*before, *(k for k in now if k not in before)]:
            lines += differences(before.get(key), now.get(key), f"{where}.{key}" if where else str(key))
        return lines
    return [] if before == now else [f"{where}: was {json.dumps(before)}, is {json.dumps(now)}"]


def stored(study: StudyConfig) -> dict[str, Any]:
    """The study as it is written to disk, log and MLflow: all but the passwords in its addresses.

    Who needs an address again asks `tracking.store.address_of` or `sync.storage_of`, which find the password or say
    where to give it.
    """
    values = study.model_dump(mode="json", by_alias=True)
    addresses = {"tracking_uri": study.tracking_uri, "storage": study.storage}
    return values | {name: masked(address) if address else None for name, address in addresses.items()}
