"""Count the parameters and the FLOPs of each backbone by stage, from shapes alone and without computing any value.

`python -m harness.model.flops` prints the table that is stored in `harness/config/costs.json`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.config.backbone_specs import backbone_spec, backbone_specs
from harness.config.trial import DEPTH_MAX
from harness.model import batchnorm, freezing
from harness.model.meta import build_shapes
from harness.model.transfer import TransferModel

CLASSES = 10  # of the head, whose FLOPs are included; they are few compared with any backbone's


def measure(backbone: str) -> dict[str, Any]:
    """Count the parameters, and the FLOPs for one image at the native size; a multiply-add counts as two.

    Returns:
        `parameters`: of each stage, stem first. `forward`: FLOPs of each stage's forward pass. `backward`: FLOPs of the
        backward pass at each depth, 0 (the head alone) to 5. `batchnorm_layers`. Convolutions and matrix products are
        counted; normalisation, activations and pooling are not.
    """
    size = backbone_spec(backbone).native_size
    model = build_shapes(backbone, CLASSES).eval()
    image = torch.empty(1, 3, size, size, device="meta")
    return {
        "parameters": [sum(p.numel() for p in stage.parameters()) for stage in model.stages.values()],
        "forward": _forward(model, image),
        "backward": [_backward(model, image, depth) for depth in range(DEPTH_MAX + 1)],
        "batchnorm_layers": batchnorm.count(model),
    }


@torch.no_grad()
def _forward(model: TransferModel, x: torch.Tensor) -> list[int]:
    model.requires_grad_(False)  # the counter's hooks fail on views of parameters that require a gradient
    counts = []
    for stage in model.stages.values():
        with FlopCounterMode(display=False) as counter:
            x = stage(x)
        counts.append(counter.get_total_flops())
    return counts


def _backward(model: TransferModel, image: torch.Tensor, depth: int) -> int:
    freezing.unfreeze_last(model, depth)
    total = model(image).sum()
    with FlopCounterMode(display=False) as counter:
        total.backward()
    return int(counter.get_total_flops())


def main() -> None:
    """Print the table, one line for each backbone."""
    rows = [f"{json.dumps(name)}: {json.dumps(measure(name))}" for name in backbone_specs()]
    sys.stdout.write("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    main()
