"""Models without values, on torch's meta device: to count and to look at, even where the memory would not do."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from harness.model.transfer import TransferModel, build


class _Empty(TorchFunctionMode):
    """What is made empty, to be filled by chance, is made without memory.

    Not `torch.device("meta")`: RegNet computes its widths with tensors.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def build_shapes(backbone: str, num_classes: int, **options: Any) -> TransferModel:
    """As `harness.model.transfer.build` with random weights, but every tensor has a shape and no values."""
    with _Empty():
        model = build(backbone, num_classes, "none", **options)
    return model.to("meta")
