"""BatchNorm in a pretrained network that is trained further: five policies, and the re-estimation of statistics.

A policy decides three things, and stays in effect through every `model.train()`:

| policy          | affine weights           | running statistics                     | normalises by                  |
|-----------------|--------------------------|----------------------------------------|--------------------------------|
| `frozen`        | fixed everywhere         | kept                                   | running                        |
| `fixed_stats`   | train in unfrozen stages | kept                                   | running                        |
| `updated_stats` | train in unfrozen stages | updated in unfrozen stages only        | batch there, otherwise running |
| `recalibrated`  | train in unfrozen stages | re-estimated before epoch 1, then kept | running                        |
| `train_mode`    | train in unfrozen stages | updated everywhere                     | batch everywhere               |

`harness.model.freezing.trainable` implements the affine weights; this module implements the rest. `train_mode` is what
plain `model.train()` does. It is included because many training scripts do this, in frozen stages too, without
intending it.
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
    """Return the number of BatchNorm layers."""
    return sum(isinstance(layer, BATCHNORM) for layer in model.modules())


def has_batchnorm(model: nn.Module) -> bool:
    """Return whether there is any BatchNorm layer."""
    return count(model) > 0


def apply_policy(model: TransferModel, policy: BatchNormPolicy, unfrozen: Collection[str] | None = None) -> None:
    """Apply a BatchNorm policy now and in every later `model.train()`. Call it again when stages are unfrozen.

    Frozen stages stay in eval mode, so that their dropout and stochastic depth are off too; with `train_mode`, only
    their BatchNorm layers are in train mode. `model.eval()` works as usual. This function does not decide which
    parameters train, and does not re-estimate statistics: that is `recalibrate`.

    Args:
        unfrozen: names of the stages that train; None takes those with a parameter that requires a gradient.
    """
    if unfrozen is None:
        unfrozen = [name for name, stage in model.stages.items() if any(p.requires_grad for p in stage.parameters())]
    unknown = set(unfrozen) - set(model.stages)
    if unknown:
        raise KeyError(f"the model has no stage {', '.join(sorted(unknown))}")
    model.batchnorm_policy = policy
    model.unfrozen = frozenset(unfrozen)
    model.train(model.training)


class _Reached(Exception):
    """Stops a forward pass at the layer whose input is needed."""


class _Pooled:
    """Mean and variance of each channel over all added values, in float64 (merged after Chan et al. 1979)."""

    def __init__(self) -> None:
        self.n = 0
        self.mean: Tensor | None = None
        self.squares: Tensor | None = None

    def add(self, x: Tensor) -> None:
        """Add values (N, C, ...)."""
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
        """Write mean and variance into the layer's buffers. The variance is the unbiased one, as torch stores it."""
        assert self.mean is not None and self.squares is not None  # recalibrate refuses to run without images
        mean, variance = layer.get_buffer("running_mean"), layer.get_buffer("running_var")
        mean.copy_(self.mean)
        variance.copy_(self.squares / max(1, self.n - 1))


def _steps(module: nn.Module, source: BackboneSource | None = None) -> Iterator[Step]:
    """Return the module as a chain of small steps; with smaller steps, less is computed twice."""
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
    """Put all modules into eval mode inside the block, and back into their own modes after it."""
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _walk(values: Iterable[Value], steps: Iterable[Step], device: torch.device) -> Iterator[Value]:
    """Return each value after these steps."""
    chain = [run for _, run in steps]
    for value in values:
        moved = value.to(device) if isinstance(value, Tensor) else value
        for run in chain:
            moved = run(moved)
        yield moved


def _kept(values: Iterable[Value]) -> list[Value] | None:
    """Return the values as a list, or None if they need more than KEPT_BYTES."""
    result, size = [], 0
    for value in values:
        size += sum(t.numel() * t.element_size() for t in ([value] if isinstance(value, Tensor) else value))
        if size > KEPT_BYTES:
            return None
        result.append(value)
    return result


def _in_order(module: nn.Module, run: Callable[[Value], Value], value: Value) -> list[nn.Module]:
    """Return the BatchNorm layers of a step that have running statistics, in the order in which they run."""
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
    """Return the input of a layer in `run(value)`; what follows the layer is not computed."""
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
    """Return the images in batches of exactly `size`, the last one padded, and the number of real images in each.

    Convolutions round differently for other batch shapes; without this, the statistics would depend on the caller's
    batches.
    """
    parts = [images] if isinstance(images, Tensor) else list(images)
    if not any(len(part) for part in parts):
        raise DataError("recalibrate needs at least one image, but got none.")
    whole = parts[0] if len(parts) == 1 else torch.cat(parts)
    batches = list(torch.split(whole, size))
    counts = [len(batch) for batch in batches]
    batches[-1] = torch.cat([batches[-1], whole[:1].expand(size - counts[-1], -1, -1, -1)])
    return batches, counts


@torch.no_grad()
def recalibrate(model: nn.Module, images: Tensor | Iterable[Tensor], *, batch_size: int = 64) -> None:
    """Re-estimate the running statistics of every BatchNorm layer, as if all images were one batch.

    The layers are processed in order, stem first: each layer gets the statistics of its inputs, computed with the new
    statistics of the layers before it. Mean and variance are pooled over all pixels of all images. The result does not
    depend on the batches, and on the order of the images only by rounding. Parameters, `num_batches_tracked` and the
    train or eval mode do not change.

    This takes the time of two to four forward passes (five for Inception) and up to 2 GiB for activations between
    layers. Activations that need more memory are computed again instead.

    Args:
        model: on the device that computes.
        images: normalised floats (N, C, H, W), not augmented, or batches of them; all are kept in memory. A thousand
            to ten thousand images are enough.
        batch_size: images in one pass; the last batch is padded to this number.

    Raises:
        DataError: there are no images.

    After Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm". They average over batches; this function pools.
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
            # All layers before this step have their final statistics, so their outputs can be kept if memory allows.
            nearer = _kept(_walk(kept, steps[start:here], device))
            if nearer is not None:
                kept, start = nearer, here
            for layer in _in_order(module, run, next(_walk(kept, steps[start:here], device))):
                pooled = _Pooled()
                for value, real in zip(_walk(kept, steps[start:here], device), counts, strict=True):
                    pooled.add(_input_of(layer, run, value)[:real])
                pooled.write(layer)
