"""The training contract: checks, in every trial and for every tensor, that training did what was configured.

A phase is a run of epochs in which the same tensors train. At its start every frozen tensor is copied; at its end the
tensor must be bit-identical to the copy. Each tensor that trains must have received a finite gradient, and the
optimizer must have updated it. Further checks do not depend on phases: the head has one output for each class, the
images are normalised as the weights expect, and an exported model gives the trained model's probabilities for the same
classes.

The checks are a module of their own so that the training loop contains none of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from harness.config.batchnorm_policy import POLICIES, BatchNormPolicy
from harness.config.initial_weights import Weights
from harness.errors import ContractError, DivergedError
from harness.model.input_channels import normalisation_of
from harness.model.transfer import TransferModel
from harness.model.weights import normalisation


def movable_buffers(model: TransferModel, policy: BatchNormPolicy, unfrozen: Iterable[str]) -> frozenset[str]:
    """Return the names of the buffers that the BatchNorm policy allows to change while the `unfrozen` stages train."""
    allowed = tuple(f"stages.{stage}." for stage in unfrozen)
    names = set()
    for prefix, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and POLICIES[policy].updates(
            unfrozen=f"{prefix}.".startswith(allowed)
        ):
            names |= {f"{prefix}.{name}" for name, _ in module.named_buffers()}
    return frozenset(names)


# By bytes of an element.
_INTEGER_OF_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Phase:
    """The contract of one phase. Create it before the phase's first step and check it after the last one.

    Args:
        training: names of the parameters that train in this phase.
        movable: names of the buffers that may change in this phase.
        reference: copies, by name, of the tensors that the model started from. A frozen tensor is compared with its
            copy here if there is one; otherwise it is copied when the phase begins.
    """

    def __init__(
        self,
        model: TransferModel,
        optimizer: torch.optim.Optimizer,
        training: frozenset[str],
        movable: frozenset[str],
        reference: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        self._model = model
        self._training = training
        reference = reference or {}
        parameters = dict(model.named_parameters())
        self._before = {name: parameters[name].detach().clone() for name in training}
        self._frozen = {
            name: reference[name] if name in reference else tensor.detach().clone()
            for name, tensor in _tensors(model)
            if name not in training and name not in movable
        }
        self._stepped: set[int] = set()  # ids of the parameters that had a gradient at an optimizer step
        self._hook = optimizer.register_step_post_hook(self._note_step)

    def _note_step(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        for group in optimizer.param_groups:
            self._stepped.update(id(p) for p in group["params"] if p.grad is not None)

    def note_solved(self) -> None:
        """Note that a solver has set every training tensor, without steps of the optimizer."""
        parameters = dict(self._model.named_parameters())
        self._stepped.update(id(parameters[name]) for name in self._training)

    def check_gradients(self) -> tuple[str, ...]:
        """Check, after a backward pass, that every training tensor has a finite gradient and no other tensor has one.

        Returns:
            Names of the parameters whose gradient is zero everywhere. A zero-initialised head causes this in the whole
            backbone at its first step.

        Raises:
            ContractError: names the first training tensor without a gradient, or the first frozen one with a gradient.
            DivergedError: names the first tensor whose gradient is not finite.
        """
        names, gradients = [], []
        for name, parameter in self._model.named_parameters():
            if name in self._training:
                if parameter.grad is None:
                    raise ContractError(f"{name} must train, but it got no gradient")
                names.append(name)
                gradients.append(parameter.grad)
            elif parameter.grad is not None:
                raise ContractError(f"{name} is frozen, but it got a gradient")
        # One pass over the values: NaN if there is one, otherwise the largest absolute value.
        # (A norm of order infinity takes nine times as long on a CPU.)
        ends = torch.stack([torch.stack(gradient.aminmax()) for gradient in gradients]).float()
        largest = [max(abs(low), abs(high)) for low, high in ends.tolist()]
        for name, size in zip(names, largest, strict=True):
            if not math.isfinite(size):
                raise DivergedError(f"the gradient of {name} became {size}")
        return tuple(name for name, size in zip(names, largest, strict=True) if size == 0)

    def check_end(self) -> tuple[str, ...]:
        """Check, after the phase's last step, that frozen tensors are unchanged and training tensors were updated.

        Returns:
            Warnings for tensors that were updated but kept their values: the learning rate is too small to change
            their floating-point numbers.

        Raises:
            ContractError: names the frozen tensor that changed, or the training tensor that was never updated.
        """
        check_unchanged(self._model, self._frozen)
        self._hook.remove()
        warnings = []
        parameters = dict(self._model.named_parameters())
        for name in sorted(self._training):
            if id(parameters[name]) not in self._stepped:
                raise ContractError(f"{name} must train, but the optimizer never updated it")
            if _same(parameters[name].detach(), self._before[name]):
                warnings.append(
                    f"{name} was updated but kept its values: its learning rate is too small to change them"
                )
        return tuple(warnings)


def check_unchanged(model: nn.Module, reference: Mapping[str, torch.Tensor]) -> None:
    """Check that every tensor with a copy in `reference` is bit-identical to that copy.

    Raises:
        ContractError: names the first tensor that differs.
    """
    for name, tensor in _tensors(model):
        if name in reference and not _same(tensor, reference[name]):
            raise ContractError(f"{name} is frozen, but it changed")


def watch_head(model: TransferModel, num_classes: int) -> None:
    """Register a hook that checks, in the first forward pass, that the head gives one number for each class.

    The pass that is checked is the first training step's, because a pass for the check alone would cost more than the
    rest of the contract. That pass raises ContractError if the shape is wrong.
    """

    def check(module: nn.Module, inputs: object, logits: torch.Tensor) -> None:
        if logits.ndim != 2 or logits.shape[1] != num_classes or model.num_classes != num_classes:
            raise ContractError(
                f"the head must give {num_classes} numbers for each image, but its output is {tuple(logits.shape)}"
            )
        hook.remove()

    hook = model.head.register_forward_hook(check)


def check_normalisation(
    normalise: Callable[[torch.Tensor], torch.Tensor],
    weights: str | Weights,
    backbone: str,
    device: torch.device,
    channels: int = 3,
) -> None:
    """Check that a black and a white image are normalised as these weights expect.

    Args:
        normalise: function from images (B, C, H, W) in [0, 1] to normalised images of the same shape.
        weights, backbone: as in a study file.
        channels: C. Channel j must be normalised as colour j mod 3.

    Raises:
        ContractError: names the channel, the expected value and the value it got.
    """
    mean, std = normalisation_of(normalisation(weights, backbone), channels)
    whose = f"{Weights.of(weights).label} for {backbone}"
    levels = torch.tensor([0.0, 1.0], device=device).view(2, 1, 1, 1)
    given = normalise(levels.expand(2, channels, 1, 1)).flatten(1).tolist()
    for level, row in zip((0.0, 1.0), given, strict=True):
        for channel, value in enumerate(row):
            expected = (level - mean[channel]) / std[channel]
            if abs(value - expected) > 1e-5:
                raise ContractError(
                    f"the normalisation must be that of {whose}: channel {channel} of a pixel value "
                    f"{level:g} must become {expected:.4f}, but became {value:.4f}"
                )


def check_classes(trained: Sequence[str], used: Sequence[str]) -> None:
    """Check that a model is used with the classes it was trained on, in the same order.

    Raises:
        ContractError: names the first class that differs.
    """
    for index, (one, other) in enumerate(zip_longest(trained, used)):
        if one != other:
            raise ContractError(f"class {index} was {one!r} in training but is {other!r} now")


def check_export(expected: NDArray[np.float32], given: NDArray[np.float32]) -> None:
    """Check that an exported model gives the trained model's class probabilities (N, C) for the same images.

    Raises:
        ContractError: gives the largest difference, if it is 1e-4 or more.
    """
    apart = float(np.abs(expected - given).max(initial=0.0))
    if not apart < 1e-4:
        raise ContractError(f"the exported model's probabilities are up to {apart:.2g} away from the trained model's")


def _tensors(model: nn.Module) -> Iterable[tuple[str, torch.Tensor]]:
    yield from ((name, p.detach()) for name, p in model.named_parameters())
    yield from model.named_buffers()


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Return whether two tensors are bit-identical: a NaN equals itself, and 0 is not -0."""
    integer = _INTEGER_OF_SIZE[a.element_size()]  # torch.equal of integers stops at the first difference
    return torch.equal(a.view(integer), b.view(integer))
