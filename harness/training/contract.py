"""What had to change changed, what had to stay stayed: checked in every trial, tensor by tensor.

A phase is a run of epochs in which the same tensors train. At its start every tensor that must stay is
copied; at its end it must be bit-identical. Each tensor that trains must have had a finite gradient and
must have been stepped by the optimizer. Around the phases: the head answers for the right classes, the images are
normalised as the weights expect, and the model that is handed out is the one that was trained, class by class.
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
from harness.errors import ContractError, DivergedError
from harness.model.transfer import TransferModel
from harness.model.weights import normalisation


def movable_buffers(model: TransferModel, policy: BatchNormPolicy, unfrozen: Iterable[str]) -> frozenset[str]:
    """Names of the buffers that the policy lets move while these stages train."""
    allowed = tuple(f"stages.{stage}." for stage in unfrozen)
    names = set()
    for prefix, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and POLICIES[policy].updates(
            unfrozen=f"{prefix}.".startswith(allowed)
        ):
            names |= {f"{prefix}.{name}" for name, _ in module.named_buffers()}
    return frozenset(names)


_INTEGER_OF_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Phase:
    """The contract of one phase: made before its first step, checked after its last.

    Args:
        training: names of the parameters that train now.
        movable: names of the buffers that may move now.
        reference: by name, copies of what tensors must still be when the phase begins and, if they stay, when it ends:
            those the model started from. What is not in it is copied.
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
        self._stepped: set[int] = set()  # ids of the parameters the optimizer went over with a gradient
        self._hook = optimizer.register_step_post_hook(self._note_step)

    def _note_step(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        for group in optimizer.param_groups:
            self._stepped.update(id(p) for p in group["params"] if p.grad is not None)

    def check_gradients(self) -> tuple[str, ...]:
        """After a backward pass: every tensor that trains has a finite gradient, and no other one has any.

        Returns:
            Names whose gradient was zero everywhere (a zero-initialised head does that to the backbone once).

        Raises:
            ContractError: names the first tensor without a gradient, or the frozen one with one.
            DivergedError: names the first tensor with a gradient that is not finite.
        """
        names, gradients = [], []
        for name, parameter in self._model.named_parameters():
            if name in self._training:
                if parameter.grad is None:
                    raise ContractError(f"{name} has to train but got no gradient")
                names.append(name)
                gradients.append(parameter.grad)
            elif parameter.grad is not None:
                raise ContractError(f"{name} is frozen but got a gradient")
        # One pass over the values and one answer for all: NaN where there is one, else the largest absolute value.
        # (A norm of order infinity takes nine times as long on a CPU.)
        ends = torch.stack([torch.stack(gradient.aminmax()) for gradient in gradients]).float()
        largest = [max(abs(low), abs(high)) for low, high in ends.tolist()]
        for name, size in zip(names, largest, strict=True):
            if not math.isfinite(size):
                raise DivergedError(f"the gradient of {name} became {size}")
        return tuple(name for name, size in zip(names, largest, strict=True) if size == 0)

    def check_end(self) -> tuple[str, ...]:
        """After the phase's last step.

        Returns:
            Warnings: tensors that were stepped without moving (a rate below the resolution of their floats).

        Raises:
            ContractError: names the frozen tensor that moved, or the training one that was never stepped.
        """
        check_unchanged(self._model, self._frozen)
        self._hook.remove()
        warnings = []
        parameters = dict(self._model.named_parameters())
        for name in sorted(self._training):
            if id(parameters[name]) not in self._stepped:
                raise ContractError(f"{name} has to train but the optimizer never stepped it")
            if _same(parameters[name].detach(), self._before[name]):
                warnings.append(f"{name} was stepped but did not move: its rate is below the resolution of its values")
        return tuple(warnings)


def check_unchanged(model: nn.Module, reference: Mapping[str, torch.Tensor]) -> None:
    """Check that every tensor with a copy in `reference` is bit-identical to that copy.

    Raises:
        ContractError: names the first tensor that differs.
    """
    for name, tensor in _tensors(model):
        if name in reference and not _same(tensor, reference[name]):
            raise ContractError(f"{name} is frozen but changed")


def watch_head(model: TransferModel, num_classes: int) -> None:
    """Let the first forward pass check that the head answers with one number for each class.

    It looks at the step that trains anyway, because a pass of its own would cost more than the whole contract.
    That pass raises ContractError where the shape is wrong.
    """

    def check(module: nn.Module, inputs: object, answers: torch.Tensor) -> None:
        if answers.ndim != 2 or answers.shape[1] != num_classes or model.num_classes != num_classes:
            raise ContractError(f"the head must give {num_classes} numbers an image, but gives {tuple(answers.shape)}")
        hook.remove()

    hook = model.head.register_forward_hook(check)


def check_normalisation(
    normalise: Callable[[torch.Tensor], torch.Tensor], weights: str, backbone: str, device: torch.device
) -> None:
    """Black and white images come out as these weights expect them.

    Args:
        normalise: images (B, 3, H, W) in [0, 1] -> the same, normalised.
        weights, backbone: as in a study file.

    Raises:
        ContractError: names the channel, what it must become and what it became.
    """
    mean, std = normalisation(weights, backbone)
    given = normalise(torch.tensor([0.0, 1.0], device=device).view(2, 1, 1, 1).expand(2, 3, 1, 1)).flatten(1).tolist()
    for level, row in zip((0.0, 1.0), given, strict=True):
        for channel, value in enumerate(row):
            wanted = (level - mean[channel]) / std[channel]
            if abs(value - wanted) > 1e-5:
                raise ContractError(
                    f"the normalisation must be that of {weights} for {backbone}: channel {channel} of a pixel value "
                    f"{level:g} must become {wanted:.4f}, but became {value:.4f}"
                )


def check_classes(trained: Sequence[str], used: Sequence[str]) -> None:
    """The classes of a model that is used again are those it was trained on, in the same order.

    Raises:
        ContractError: names the first class that differs.
    """
    for index, (one, other) in enumerate(zip_longest(trained, used)):
        if one != other:
            raise ContractError(f"class {index} was {one!r} in training but is {other!r} now")


def check_export(expected: NDArray[np.float32], given: NDArray[np.float32]) -> None:
    """The model that is handed out answers as the trained one does: class probabilities (N, C) of the same images.

    Raises:
        ContractError: says how far they are apart.
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
