"""Exponential moving average (EMA) of a model's weights, which is evaluated and saved instead of the last step's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Average:
    """Running averages of some tensors of a model, updated after every step.

    After t steps the decay is (1 + t) / (10 + t), but at most `decay`: with a constant decay, the average of a trial of
    a few hundred steps would consist mainly of its starting point. Averages of tensors that do not change stay
    bit-identical to them.

    After Polyak and Juditsky 1992, "Acceleration of stochastic approximation by averaging"; the rising decay is that
    of TensorFlow's `ExponentialMovingAverage`.
    """

    def __init__(self, tensors: Mapping[str, Tensor], decay: float) -> None:
        """Start the averages at the current values of these parameters and buffers; integer tensors are left out."""
        self._live = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
        self._kept = {name: tensor.detach().clone() for name, tensor in self._live.items()}
        self._decay = decay
        self._steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """Update the averages with the values after a step."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        live = [tensor.detach() for tensor in self._live.values()]
        torch._foreach_lerp_(list(self._kept.values()), live, 1 - decay)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Put the averages into the model inside the block, and its own values back after it."""
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
        """Return what `load_state_dict` needs to continue."""
        return {"kept": self._kept, "steps": self._steps}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Continue from a `state_dict`; raise KeyError if it belongs to another model."""
        kept = state["kept"]
        assert isinstance(kept, dict)
        for name, tensor in self._kept.items():
            tensor.copy_(kept[name])
        self._steps = int(str(state["steps"]))
