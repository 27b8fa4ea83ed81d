"""BatchNorm while a pretrained network is adapted: five policies, and statistics estimated anew.

A policy settles three facts at once, and holds through every `model.train()`:

| policy          | affine weights           | running statistics                     | normalises by             |
|-----------------|--------------------------|----------------------------------------|---------------------------|
| `frozen`        | fixed everywhere         | kept                                   | running                   |
| `fixed_stats`   | train in unfrozen stages | kept                                   | running                   |
| `updated_stats` | train in unfrozen stages | updated in unfrozen stages only        | batch there, else running |
| `recalibrated`  | train in unfrozen stages | re-estimated before epoch 1, then kept | running                   |
| `train_mode`    | train in unfrozen stages | updated everywhere                     | batch everywhere          |

The first column is `harness.model.freezing.trainable`'s; the others are settled here. `train_mode` is what plain
`model.train()` does: it is there because many do it, in frozen stages too, without having chosen it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from harness.config.batchnorm_policy import BatchNormPolicy
from harness.errors import DataError
from harness.model.backbones import BackboneSource, Step, Value, source_of
from harness.model.transfer import BATCHNORM, TransferModel

KEPT_BYTES = 1 << 30  # activations kept between two layers; beyond it they are computed again


def count(model: nn.Module) -> int:
    """Number of BatchNorm layers."""
    return sum(isinstance(layer, BATCHNORM) for layer in model.modules())


def has_batchnorm(model: nn.Module) -> bool:
    """Whether there is any BatchNorm layer."""
    return count(model) > 0


def apply_policy(model: TransferModel, policy: BatchNormPolicy, unfrozen: Collection[str] | None = None) -> None:
    """Hold BatchNorm to a policy from now on, through every `model.train()`; call it again when stages unfreeze.

    Stages that are not unfrozen stay in eval mode altogether, so that their dropout and stochastic depth are off too;
    under `train_mode` their BatchNorm layers, and only these, train nevertheless. `model.eval()` is as ever. Does not
    decide which parameters train, and does not re-estimate anything: that is `recalibrate`, called once.

    Args:
        unfrozen: names of the stages that train; None takes those with a parameter that requires a gradient.
    """
    if unfrozen is None:
        unfrozen = [name for name, stage in model.stages.items() if any(p.requires_grad for p in stage.parameters())]
    unknown = set(unfrozen) - set(model.stages)
    if unknown:
        raise KeyError(f"no stage of the name {', '.join(sorted(unknown))}")
    model.batchnorm_policy = policy
    model.unfrozen = frozenset(unfrozen)
    model.train(model.training)


class _Reached(Exception):
    """Stops a forward pass at the layer whose input was wanted."""


class _Pooled:
    """Mean and variance of each channel over everything that was added, in float64 (merged after Chan et al. 1979)."""

    def __init__(self) -> None:
        self.n = 0
        self.mean: Tensor | None = None
        self.squares: Tensor | None = None

    def add(self, x: Tensor) -> None:
        """(N, C, ...) values."""
        values = (x.cpu() if x.device.type == "mps" else x).double()  # MPS has no float64
        over = [dim for dim in range(values.ndim) if dim != 1]
        n = values.numel() // values.shape[1]
        mean = values.mean(over)
        squares = (values - mean.view(1, -1, *[1] * (values.ndim - 2))).square_().sum(over)
        if self.mean is None or self.squares is None:
            self.n, self.mean, self.squares = n, mean, squares
            return
        total = self.n + n
        delta = mean - self.mean
        self.mean = self.mean + delta * (n / total)
        self.squares = self.squares + squares + delta.square() * (self.n * n / total)
        self.n = total

    def write(self, layer: nn.Module) -> None:
        """Into the layer's buffers; the variance is the unbiased one, as torch keeps it."""
        assert self.mean is not None and self.squares is not None  # recalibrate refuses no images
        mean, variance = layer.get_buffer("running_mean"), layer.get_buffer("running_var")
        mean.copy_(self.mean)
        variance.copy_(self.squares / max(1, self.n - 1))


def _steps(module: nn.Module, source: BackboneSource | None = None) -> Iterator[Step]:
    """The module as a chain of small steps; the smaller they are, the less is computed twice."""
    if isinstance(module, TransferModel):
        for stage in module.stages.values():
            yield from _steps(stage, source_of(module.backbone_name))
    elif type(module).forward is nn.Sequential.forward:
        for child in module.children():
            yield from _steps(child, source)
    elif source is not None and (smaller := source.steps(module)) is not None:
        yield from smaller
    else:
        yield module, module


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Everything in eval mode, and back as it was."""
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _walk(values: Iterable[Value], steps: Iterable[Step], device: torch.device) -> Iterator[Value]:
    """Each value behind these steps."""
    chain = [run for _, run in steps]
    for value in values:
        moved = value.to(device) if isinstance(value, Tensor) else value
        for run in chain:
            moved = run(moved)
        yield moved


def _kept(values: Iterable[Value]) -> list[Value] | None:
    """The values as a list, or None where they need more than KEPT_BYTES."""
    result, size = [], 0
    for value in values:
        size += sum(t.numel() * t.element_size() for t in ([value] if isinstance(value, Tensor) else value))
        if size > KEPT_BYTES:
            return None
        result.append(value)
    return result


def _in_order(module: nn.Module, run: Callable[[Value], Value], value: Value) -> list[nn.Module]:
    """The BatchNorm layers of a step that keep running statistics, in the order they run."""
    order: list[nn.Module] = []
    hooks = [
        layer.register_forward_pre_hook(lambda layer, _: order.append(layer))
        for layer in module.modules()
        if isinstance(layer, BATCHNORM) and layer.running_mean is not None
    ]
    try:
        run(value)
    finally:
        for hook in hooks:
            hook.remove()
    return order


def _input_of(layer: nn.Module, run: Callable[[Value], Value], value: Value) -> Tensor:
    """What the layer is given when `run(value)` comes to it; the rest is not computed."""
    seen: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0])
        raise _Reached

    hook = layer.register_forward_pre_hook(keep)
    with contextlib.suppress(_Reached):
        try:
            run(value)
        finally:
            hook.remove()
    return seen[0]


def _one_shape(images: Tensor | Iterable[Tensor], size: int) -> tuple[list[Tensor], list[int]]:
    """The images in batches of exactly `size`, the last one filled up, and how many in each are real.

    Convolutions round differently for other batch shapes, so that the caller's batches would show in the statistics.
    """
    parts = [images] if isinstance(images, Tensor) else list(images)
    if not any(len(part) for part in parts):
        raise DataError("recalibrate must see at least one image, but got none.")
    whole = parts[0] if len(parts) == 1 else torch.cat(parts)
    batches = list(torch.split(whole, size))
    counts = [len(batch) for batch in batches]
    batches[-1] = torch.cat([batches[-1], whole[:1].expand(size - counts[-1], -1, -1, -1)])
    return batches, counts


@torch.no_grad()
def recalibrate(model: nn.Module, images: Tensor | Iterable[Tensor], *, batch_size: int = 64) -> None:
    """Estimate the running statistics of every BatchNorm layer anew, as if all images were one batch.

    Layer by layer, stem first: each layer's statistics are those of its inputs under the new statistics of the layers
    before it. Mean and variance are pooled over all pixels of all images; into what batches the images come does not
    matter, nor does their order beyond rounding. Parameters, `num_batches_tracked` and the train or eval mode stay.

    Takes two to four forward passes (Inception five) and up to 2 GiB for activations between layers; where these would
    need more, they are computed again instead.

    Args:
        model: on the device where it will compute.
        images: normalised floats (N, 3, H, W), not augmented, or batches of these; all are held in memory. A thousand
            to ten thousand suffice.
        batch_size: images in one pass, padded to exactly this many.

    Raises:
        DataError: there are no images.

    After Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm"; they average over batches, this pools.
    """
    batches, counts = _one_shape(images, batch_size)
    kept: list[Value] = list(batches)  # the values before step `start`
    start = 0
    device = next(iter([*model.parameters(), *model.buffers()])).device
    steps = list(_steps(model))
    with _evaluating(model):
        for here, (module, run) in enumerate(steps):
            if module is None or not has_batchnorm(module):
                continue
            # All layers before this step are final, so what they give can be kept, if there is room.
            nearer = _kept(_walk(kept, steps[start:here], device))
            if nearer is not None:
                kept, start = nearer, here
            for layer in _in_order(module, run, next(_walk(kept, steps[start:here], device))):
                pooled = _Pooled()
                for value, real in zip(_walk(kept, steps[start:here], device), counts, strict=True):
                    pooled.add(_input_of(layer, run, value)[:real])
                pooled.write(layer)
