"""Models without values, on torch's meta device, for counting parameters and FLOPs without using memory."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from harness.model.transfer import TransferModel, build


class _Empty(TorchFunctionMode):
    """Allocates no memory for tensors from `torch.empty`, which layers make and then fill with random values.

    `torch.device("meta")` would not do, because RegNet computes its widths with tensors.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def build_shapes(backbone: str, num_classes: int, **options: Any) -> TransferModel:
    """Build a model as `harness.model.transfer.build` does, but with tensors that have a shape and no values."""
    with _Empty():
        model = build(backbone, num_classes, "none", **options)
    return model.to("meta")
