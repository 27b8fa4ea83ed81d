"""The parameters and FLOPs of each backbone, by stage: plain values, so that commands and pages need no model.

`costs.json` is the output of `python -m harness.model.flops`. A test measures the backbones again and compares.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

from harness.config.backbone_specs import Cost, backbone_spec
from harness.errors import ConfigError


@cache
def _table() -> dict[str, Cost]:
    rows = json.loads((resources.files("harness.config") / "costs.json").read_text(encoding="utf-8"))
    return {
        name: Cost(tuple(row["parameters"]), tuple(row["forward"]), tuple(row["backward"]), row["batchnorm_layers"])
        for name, row in rows.items()
    }


def cost(backbone: str) -> Cost:
    """Return the costs of a backbone for images of three channels, from its spec or from the table.

    With other channels (`data.channels: all`), only the first convolution costs more, which is not counted. All trials
    of a study have the same number of channels.

    Raises:
        ConfigError: there is no backbone of that name, or it has no costs.
    """
    spec = backbone_spec(backbone)
    if spec.cost is not None:
        return spec.cost
    if backbone not in _table():
        raise ConfigError(
            f"the spec of {backbone} must have a cost, but it has none; `python -m harness.model.flops` measures costs."
        )
    return _table()[backbone]
