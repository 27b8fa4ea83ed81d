"""The parameters and FLOPs of each backbone, by stage: plain values, so that commands and pages need no model.

`costs.json` is the output of `python -m harness.model.flops`. A test measures the backbones again and compares. Sources
of many backbones have no table: `harness.model.flops` counts theirs when they are first asked for.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import import_module, resources
from typing import Any

from harness.config.backbone_specs import Cost, backbone_spec, source_entry
from harness.errors import ConfigError


@cache
def _table() -> dict[str, Cost]:
    rows = json.loads((resources.files("harness.config") / "costs.json").read_text(encoding="utf-8"))
    return {name: _cost(row) for name, row in rows.items()}


def _cost(row: dict[str, Any]) -> Cost:
    return Cost(tuple(row["parameters"]), tuple(row["forward"]), tuple(row["backward"]), row["batchnorm_layers"])


@cache
def _measured(backbone: str) -> Cost:
    # imported by name: this floor is below that of the models, and most commands need no model
    return _cost(import_module("harness.model.flops").measure(backbone))


def cost(backbone: str) -> Cost:
    """Return the costs of a backbone for images of three channels.

    They are in its spec or in the table, or are counted now if its source has no table.

    With other channels (`data.channels: all`), only the first convolution costs more, which is not counted. All trials
    of a study have the same number of channels.

    Raises:
        ConfigError: there is no backbone of that name, or it has no costs.
    """
    spec = backbone_spec(backbone)
    if spec.cost is not None:
        return spec.cost
    if source_entry(backbone).measured:
        return _measured(backbone)
    if backbone not in _table():
        raise ConfigError(
            f"the spec of {backbone} must have a cost, but it has none; `python -m harness.model.flops` measures costs."
        )
    return _table()[backbone]


def cost_if_known(backbone: str) -> Cost | None:
    """Return the costs of a backbone; None if it cannot be looked up here.

    A stored study may have a backbone of a library that is not installed, or of a user's own code that must not run.
    """
    try:
        return cost(backbone)
    except ConfigError:
        return None
