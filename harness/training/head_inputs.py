"""What a head gets from a backbone: the features of images, noted while the model runs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from harness.model.transfer import TransferModel


def head_inputs(model: TransferModel, run: Callable[[], object]) -> NDArray[np.float32]:
    """Return the inputs (N, D) of the model's head in all its forward passes during `run`.

    A map, as SqueezeNet's, is averaged over its places.
    """
    seen: list[NDArray[np.float32]] = []

    def note(module: object, inputs: tuple[Tensor, ...]) -> None:
        features = inputs[0].detach().float()
        seen.append((features.flatten(2).mean(dim=2) if features.ndim == 4 else features).cpu().numpy())

    hook = model.head.register_forward_pre_hook(note)
    try:
        run()
    finally:
        hook.remove()
    return np.concatenate(seen)
