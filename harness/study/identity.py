"""Decide whether two runs are the same study: its fingerprint, and the keys that may change on an existing study.

Study, session and doctor compare studies with these functions. No address is stored here with its password.
"""

from __future__ import annotations

import json
from typing import Any

from harness.config.space import backbones
from harness.config.study import StudyConfig
from harness.data.dataset import Dataset
from harness.errors import ConfigError
from harness.model import weights
from harness.model.backbones import source_of
from harness.safe_text import masked
from harness.study.executors.base import WorkerContext

# Keys that may change on an existing study: none of them can change a number that is already in the log.
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


def fingerprint(
    study: StudyConfig,
    dataset: Dataset,
    context: WorkerContext,
    device: str,
    value_range: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Return everything that can change a number. Two runs with equal fingerprints are the same study.

    Args:
        device: on which its trials run.
        value_range: sample values that are black and white, with `bit_depth: used`.
    """
    values = study.model_dump(mode="json", by_alias=True, exclude=set(FREE_TO_CHANGE))
    values["data"].pop("source")  # the digest identifies the images, wherever they are stored
    values["data"].pop("root")
    values["data"].pop("wanted")
    values["data"].pop("name")
    values["confirmation"].pop("seeds")
    values.pop("threads")
    values["precision"] = context.precision
    values.pop("weights")  # a path, which may change
    if len(study.weights.entries) > 1:
        values["search"]["weights"] = list(study.weights.labels)
    of_entries = [{name: weights.fingerprint(one, name) for name in backbones(study)} for one in study.weights.entries]
    of_weights = of_entries[0] if len(of_entries) == 1 else dict(zip(study.weights.labels, of_entries, strict=True))
    code = {name: source_of(name).version(name) for name in context.own_code}
    return (
        values
        | ({"own code": code} if code else {})
        | ({"value range": list(value_range)} if value_range is not None else {})
        | {
            "data digest": dataset.digest,
            "weights": of_weights,
            "threads": context.threads,
            "device": device.partition(":")[0],
        }
    )


def differences(before: Any, now: Any, where: str = "") -> list[str]:
    """Return the differences between two fingerprints, one text for each field: `search.head_lr: was …, is …`."""
    if isinstance(before, dict) and isinstance(now, dict):
        lines = []
        for key in [*before, *(k for k in now if k not in before)]:
            lines += differences(before.get(key), now.get(key), f"{where}.{key}" if where else str(key))
        return lines
    return [] if before == now else [f"{where}: was {json.dumps(before)}, is {json.dumps(now)}"]


# Fields of the fingerprint that say less than the key of the study file does, and what makes them as they were.
_WAYS_BACK = {
    "data digest": "the key data (DATA=...) leads to other images, or reads them in another way",
    "value range": "images have moved into or out of the training part, whose range `bit_depth: used` takes",
    "weights": "the key weights (WEIGHTS=...) names other weights",
    "device": "the key device (DEVICE=...) chooses it",
    "own code": "the file with the backbone's function has changed",
    "threads": "without the key threads the study keeps its own number",
    "epochs": "the key epochs, or EPOCHS=..., sets it",
    "precision": "the key precision sets it; without it, the device decides",
}


def refusal(name: str, before: dict[str, Any], now: dict[str, Any]) -> ConfigError | None:
    """Return the error of a study that was started with other settings; None if nothing differs that changes a number.

    It names every key that differs, with both values, and what gets past it.

    Args:
        name: of the study.
        before, now: the stored fingerprint and the present one.
    """
    lines = []
    for line in differences(before, now):
        field = line.partition(":")[0]
        way = next((way for key, way in _WAYS_BACK.items() if field == key or field.startswith(f"{key}.")), None)
        lines.append(f"{line}; {way}" if way else line)
    if not lines:
        return None
    return ConfigError(
        f"the study {name} was started with other settings; start the new ones under another name (AS=newname, or "
        "--as newname), or set these keys as they were:",
        lines,
    )


def without_passwords(study: StudyConfig) -> dict[str, Any]:
    """Return the study as it is written to disk, log and MLflow: without the passwords in its addresses.

    To use an address again, call `tracking.address.address_of` or `sync.storage_location`. They find the password if
    the user gave the address himself, and otherwise raise an error that says where to give it.
    """
    values = study.model_dump(mode="json", by_alias=True)
    addresses = {"tracking_uri": study.tracking_uri, "storage": study.storage}
    return values | {name: masked(address) if address else None for name, address in addresses.items()}
