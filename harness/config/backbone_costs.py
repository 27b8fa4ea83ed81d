"""What each backbone costs, by stage: plain values, so that a command or a page needs no model to show them.

`costs.json` is the output of `python -m harness.model.flops`; a test measures the backbones again and compares.
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
    """Return the costs of a backbone, from its spec or from the table.

    Raises:
        ConfigError: there is no backbone of that name, or it has no costs.
    """
    spec = backbone_spec(backbone)
    if spec.cost is not None:
        return spec.cost
    if backbone not in _table():
        raise ConfigError(
            f"the spec of {backbone} must state its cost, but has none; `harness.model.flops` measures it."
        )
    return _table()[backbone]
