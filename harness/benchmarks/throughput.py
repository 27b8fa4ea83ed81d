"""Training throughput of whole backbones at 224 px on one device, in images per second.

The small batches show the cost of launching kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from harness.model.transfer import build
from harness.training.precision import BFLOAT16_CHANNELS_LAST, FLOAT32, Arithmetic, now

BACKBONES = ("resnet18", "resnet50", "efficientnet_b0")
BATCHES = (32, 128, 512)
STEPS = 30


def table(device: torch.device, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Measure each backbone, batch size and arithmetic; return a row for each. Images are on the device already."""
    rows = []
    for backbone in BACKBONES:
        for batch in BATCHES:
            for arithmetic in (FLOAT32, BFLOAT16_CHANNELS_LAST):
                speed = images_a_second(backbone, batch, arithmetic, device)
                row = {"backbone": backbone, "batch": batch, "arithmetic": str(arithmetic), "images_s": speed}
                say(f"{backbone}, batches of {batch}, {arithmetic}: {speed:,.0f} images/s")
                rows.append(row)
    return rows


def images_a_second(
    backbone: str, batch: int, arithmetic: Arithmetic, device: torch.device, *, side: int = 224, steps: int = STEPS
) -> float:
    """Return images per second of full fine-tuning with AdamW, after at most five warm-up steps.

    Args:
        side: width and height of the images in pixels.
        steps: number of timed steps.
    """
    model = build(backbone, 1000, "none", image_size=side).to(device).train()
    if arithmetic.channels_last:
        model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    images = arithmetic.arrange(torch.rand(batch, 3, side, side, device=device))
    labels = torch.zeros(batch, dtype=torch.long, device=device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with arithmetic.autocast(device):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    for _ in range(min(5, steps)):
        step()
    started = now(device)
    for _ in range(steps):
        step()
    return batch * steps / (now(device) - started)
