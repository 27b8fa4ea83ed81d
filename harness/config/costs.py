"""What each backbone costs, by stage: plain values, so that a command or a page needs no model to show them.

`costs.json` is the output of `python -m harness.model.flops`; a test measures the backbones again and compares.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

from harness.config.sheets import sheet
from harness.config.trial import DEPTH_MAX


@dataclass(frozen=True)
class Cost:
    """Of one image at the native size, without the head; FLOPs count a multiply-add as two."""

    parameters: tuple[int, ...]  # of each stage, stem first
    forward: tuple[int, ...]  # FLOPs of each stage
    backward: tuple[int, ...]  # FLOPs at each depth, 0 (the head alone) to 5
    batchnorm_layers: int

    @property
    def gflops(self) -> float:
        """Of one forward pass, in 1e9 FLOPs."""
        return sum(self.forward) / 1e9

    def parameter_share(self, depth: int) -> float:
        """Share of the backbone's parameters that lie in its last `depth` stages, in [0, 1]."""
        return sum(self.parameters[DEPTH_MAX - depth :]) / sum(self.parameters)

    def backward_share(self, depth: int) -> float:
        """Work of the backward pass at this depth as a share of that at full depth, in [0, 1]."""
        return self.backward[depth] / self.backward[-1]


@cache
def _table() -> dict[str, Cost]:
    rows = json.loads((resources.files("harness.config") / "costs.json").read_text(encoding="utf-8"))
    return {
        name: Cost(tuple(row["parameters"]), tuple(row["forward"]), tuple(row["backward"]), row["batchnorm_layers"])
        for name, row in rows.items()
    }


def cost(backbone: str) -> Cost:
    """The costs of a backbone; raises ConfigError where there is none of that name."""
    return _table()[sheet(backbone).name]
