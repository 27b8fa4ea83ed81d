"""Check that a `Backbone` which a user's function returned is one, and list all that is wrong with it."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from harness.config.strategies import STAGES
from harness.model.own_backbone import Backbone

CHECKED_SIZE = 64  # pixels a side of the images that a check runs, unless the network is built for one size
BATCHNORM = nn.modules.batchnorm._BatchNorm


def is_random(layer: nn.Module) -> bool:
    """Return whether a layer is a stochastic depth, by the attributes that the usual ones have."""
    kind = type(layer).__name__.lower()
    if not any(word in kind for word in ("droppath", "stochasticdepth", "dropblock")):
        return False
    return any(bool(getattr(layer, name, 0) or 0) for name in ("p", "drop_prob", "prob"))


def draws(layer: nn.Module) -> bool:
    """Return whether a layer draws random numbers in train mode."""
    return is_random(layer) or (isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0)


class Chain(nn.Module):
    """The network of a Backbone that names no whole model: its stages and its head."""

    def __init__(self, made: Backbone) -> None:
        super().__init__()
        for name, stage in made.stages.items():
            self.add_module(name, stage)
        self.head = made.head

    def forward(self, x: Tensor) -> Tensor:
        for name in STAGES:
            x = self.get_submodule(name)(x)
        logits: Tensor = self.head(x)
        return logits


def whole(made: Backbone) -> nn.Module:
    """Return the whole network, with the Backbone as its attribute `harness_backbone`."""
    model = made.model if made.model is not None else Chain(made)
    model.__dict__["harness_backbone"] = made  # not a submodule: the tensors keep one name each
    return model


def _first(head: nn.Module) -> nn.Module:
    return next(iter(head)) if isinstance(head, nn.Sequential) and len(head) else head


def _width(head: nn.Module) -> int | None:
    """Return the number of features that a head reads; None if it is no head."""
    layer = _first(head)
    if isinstance(layer, nn.Linear):
        return layer.in_features
    if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1):
        return layer.in_channels
    return None


def faults(made: Backbone) -> list[str]:
    """Return everything that does not fit, each with its field; [] if all does."""
    found = _faults_of_values(made)
    modules = _faults_of_modules(made)
    found += modules
    if not modules and not found:
        found += _faults_of_tensors(made) or _faults_of_passes(made)
    elif not modules:
        found += _faults_of_tensors(made)
    return found


def _faults_of_values(made: Backbone) -> list[str]:
    found = []
    for name, values in (("mean", made.mean), ("std", made.std)):
        numbers = len(values) == 3 and all(isinstance(value, int | float) for value in values)
        if not numbers or (name == "std" and min(values) <= 0):
            rule = "three numbers above zero" if name == "std" else "three numbers"
            found.append(f"{name}: must be {rule}, one for each colour channel, but got {values!r}")
    sizes = {name: getattr(made, name) for name in ("native_size", "min_size", "multiple_of", "features")}
    wrong = {name: value for name, value in sizes.items() if not isinstance(value, int) or value < 1}
    found += [f"{name}: must be a whole number above zero, but got {value!r}" for name, value in wrong.items()]
    if not wrong and (made.native_size < made.min_size or made.native_size % made.multiple_of):
        found.append(
            f"native_size: must be at least min_size ({made.min_size}) and a multiple of multiple_of "
            f"({made.multiple_of}), but got {made.native_size}"
        )
    return found


def _faults_of_modules(made: Backbone) -> list[str]:
    found = []
    if tuple(made.stages) != STAGES:
        found.append(f"stages: must be {', '.join(STAGES)}, in this order, but got {', '.join(made.stages) or 'none'}")
    for name, stage in made.stages.items():
        if not isinstance(stage, nn.Module):
            found.append(f"stages.{name}: must be a torch module, but got a {type(stage).__name__}")
        elif not any(True for _ in stage.parameters()):
            found.append(f"stages.{name}: must have a parameter, because unfreeze_depth counts stages that can train")
    if not isinstance(made.head, nn.Module) or _width(made.head) is None:
        found.append(
            f"head: must be a Linear or a 1x1 convolution, or a Sequential that begins with one, but got "
            f"a {type(made.head).__name__}"
        )
    elif _width(made.head) != made.features:
        found.append(f"features: must be what the head reads ({_width(made.head)}), but got {made.features}")
    return found


def _faults_of_tensors(made: Backbone) -> list[str]:
    """Return tensors that lie in several stages or in none, and statistics that no BatchNorm policy knows."""
    found = []
    parts = {**made.stages, "head": made.head}
    places = {name: {id(p): f"{name}.{key}" for key, p in part.named_parameters()} for name, part in parts.items()}
    count = Counter(key for own in places.values() for key in own)
    for name, own in places.items():
        shared = [path for key, path in own.items() if count[key] > 1]
        if shared:
            found.append(f"{name}: must share no parameter with another stage or the head, but shares {_few(shared)}")
    if made.model is not None:
        outside = [key for key, p in made.model.named_parameters() if id(p) not in count]
        if outside:
            found.append(
                f"model: all its parameters must be in a stage or the head, but these are not: {_few(outside)}"
            )
        held = {id(p) for p in made.model.parameters()}
        lost = [path for own in places.values() for key, path in own.items() if key not in held]
        if lost:
            found.append(f"model: must contain all parameters of stages and head, but not these: {_few(lost)}")
    for name, stage in made.stages.items():
        found += [
            f"{name}: {type(layer).__name__} has running statistics, but is no BatchNorm of torch"
            for layer in stage.modules()
            if "running_var" in layer._buffers and not isinstance(layer, BATCHNORM)
        ]
    return found


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


@torch.no_grad()
def _faults_of_passes(made: Backbone) -> list[str]:
    """Return what a pass of two images shows: shapes, writes into an input, and differences from the whole model.

    A network that was built for one image size gets images of its native size.
    """
    model = whole(made).eval()
    step = made.multiple_of
    size = made.native_size if step > 1 else min(max(made.min_size, CHECKED_SIZE), made.native_size)
    images = torch.randn(2, 3, size, size)
    x, name = images.clone(), "stages"
    try:
        for name, stage in made.stages.items():
            stage.eval()
            version = x._version  # it counts writes, also those that change no value in these images
            output = stage(x)
            if not isinstance(output, Tensor) or len(output) != 2:
                return [f"stages.{name}: must return one tensor with a row for each image"]
            if x._version != version:
                return [f"stages.{name}: must not write into its input (as ReLU(inplace=True) does)"]
            x = output
        if x.shape[1:2] != (made.features,) or (x.ndim != 2 and isinstance(_first(made.head), nn.Linear)):
            return [f"stage4: must give features of shape (N, {made.features}), but gives (N, *{tuple(x.shape[1:])})"]
        name = "head"
        logits = made.head.eval()(x)
        if logits.ndim != 2:
            return [f"head: must give one row of values for each image, but gives the shape {tuple(logits.shape)}"]
        name = "model"
        if not torch.equal(model(images.clone()), logits):
            return ["model: its forward must be the stages in order and then the head, but it gives other values"]
    except Exception as error:  # the user's modules can fail in any way
        return [f"{name}: failed on images of {size} px: {type(error).__name__}: {error}"]
    return []
