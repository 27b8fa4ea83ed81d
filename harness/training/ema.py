"""The exponential moving average of a model's values: smoother than its last step, scored and kept in its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Average:
    """Running averages of some tensors of a model, updated after every step.

    The decay rises from 2/11 at the first step to its full value, (1 + t) / (10 + t) after t steps at most: a trial of
    a few hundred steps would otherwise average its starting point. Tensors that do not move stay bit-identical.

    After Polyak and Juditsky 1992, "Acceleration of stochastic approximation by averaging"; the rising decay is that
    of TensorFlow's `ExponentialMovingAverage`.
    """

    def __init__(self, tensors: Mapping[str, Tensor], decay: float) -> None:
        """`tensors`: parameters and buffers of a model; those that hold no real numbers are left out."""
        self._live = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
        self._kept = {name: tensor.detach().clone() for name, tensor in self._live.items()}
        self._decay = decay
        self._steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the values after a step."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        live = [tensor.detach() for tensor in self._live.values()]
        torch._foreach_lerp_(list(self._kept.values()), live, 1 - decay)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The model holds the averages inside the block, and its own values again behind it."""
        own = {name: tensor.detach().clone() for name, tensor in self._live.items()}
        self._write(self._kept)
        try:
            yield
        finally:
            self._write(own)

    @torch.no_grad()
    def _write(self, values: dict[str, Tensor]) -> None:
        for name, tensor in self._live.items():
            tensor.copy_(values[name])

    def state_dict(self) -> dict[str, object]:
        """All that `load_state_dict` needs to go on."""
        return {"kept": self._kept, "steps": self._steps}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on from `state_dict`; raises KeyError where it is of another model."""
        kept = state["kept"]
        assert isinstance(kept, dict)
        for name, tensor in self._kept.items():
            tensor.copy_(kept[name])
        self._steps = int(str(state["steps"]))
