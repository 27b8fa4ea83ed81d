"""The initial weights of a backbone: from the package, the source's official file, or a user's checkpoint; or random.

This module chooses the file; `weight_files` reads it and finds the backbone in it. No code from a file is run.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

import torch
from torch import nn

from harness.config.backbone_specs import Normalisation, backbone_spec
from harness.config.initial_weights import Weights
from harness.errors import ConfigError
from harness.model import backbones
from harness.model.weight_files.layouts import layouts
from harness.model.weight_files.match import Match, Wanted, match
from harness.model.weight_files.read import read
from harness.model.weight_files.report import LoadReport


def bundled() -> tuple[str, ...]:
    """Return the names of the backbones whose weights are in the package."""
    folder = resources.files("harness.model") / "bundled"
    return tuple(
        sorted(
            entry.name.removesuffix(".safetensors") for entry in folder.iterdir() if entry.name.endswith(".safetensors")
        )
    )


def _bundled_file(backbone: str) -> Path:
    if backbone not in bundled():
        raise ConfigError(
            f"`weights: bundled` needs one of the backbones {' and '.join(bundled())}, but got {backbone}; "
            "use one of these, or `weights: imagenet`, `none` or the path of a checkpoint."
        )
    # The package is always installed as files and not as an archive, so its resources have paths.
    return Path(str(resources.files("harness.model") / "bundled" / f"{backbone}.safetensors"))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file(weights: Weights, backbone: str) -> Path:
    """Return the file of the weights; a user's file must exist."""
    if weights.source == "bundled":
        return _bundled_file(backbone)
    if weights.source == "imagenet":
        return backbones.source_of(backbone).official_file(backbone)
    if not weights.is_file:
        return backbones.source_of(backbone).official_file(backbone, weights.official(backbone).name)
    path = Path(weights.source).expanduser()
    if not path.is_file():
        raise ConfigError(
            "weights must be bundled, imagenet, none, the name of torchvision weights or the path of a checkpoint, but "
            f"there is no file {weights.source}; {backbone} has {_names(backbone)}."
        )
    return path


def _names(backbone: str) -> str:
    spec = backbone_spec(backbone)
    return ", ".join(one.name for one in spec.weights) or spec.official_weights


def _matched(network: nn.Module, backbone: str, path: Path, source: str) -> Match:
    """Return the tensors of a file for a backbone; raise ConfigError with all faults of the file."""
    own = network.state_dict(keep_vars=True)
    heads = {id(parameter) for parameter in backbones.head(network, backbone).parameters()}
    wanted = Wanted(
        backbone,
        own,
        frozenset(key for key, value in own.items() if id(value) in heads),
        layouts(backbone_spec(backbone).family),
        lambda values: backbones.source_of(backbone).translate(values, backbone, own),
    )
    return match(read(path), wanted, source)


def load(model: nn.Module, backbone: str, weights: str | Weights) -> str:
    """Load weights into a model from `backbones.build_backbone`, except into its head; return the weights' name.

    Args:
        weights: `bundled`, `imagenet`, the name of torchvision weights, `none` (which leaves the model as it is) or the
            path of a checkpoint as training scripts write it: see `harness.model.weight_files`.

    Returns:
        The name of the weights: `bundled:resnet18`, `ResNet18_Weights.IMAGENET1K_V1`, `none`, or the label of a file.

    Raises:
        ConfigError: there is no such file, there are no such bundled weights, or the file does not fit. The model is
            then unchanged.
        ResourceError: official weights are neither cached nor reachable, or do not fit their hash.
    """
    weights = Weights.of(weights)
    if weights.is_random:
        return "none"
    path = _file(weights, backbone)
    found = _matched(model, backbone, path, str(path) if weights.is_file else weights.source)
    own = model.state_dict(keep_vars=True)
    with torch.no_grad():
        for key, value in found.values.items():
            own[key].copy_(value)
    return _name(weights, backbone)


def _name(weights: Weights, backbone: str) -> str:
    if weights.source == "bundled":
        return f"bundled:{backbone}"
    return weights.label if weights.is_file else weights.official(backbone).name


def available(weights: str | Weights, backbone: str, image_size: int | None = None) -> LoadReport | None:
    """Check, before a study starts, that these weights can be loaded: download official ones, or read a checkpoint.

    Args:
        image_size: pixels a side that the study trains at; None is the native size.

    Returns:
        What is used of a file; None for bundled and random weights, about which nothing needs saying.

    Raises:
        ConfigError, ResourceError: as `load`.
    """
    weights = Weights.of(weights)
    if weights.is_random:
        backbone_spec(backbone)
        return None
    path = _file(weights, backbone)
    if weights.source == "bundled":
        return None
    if not weights.is_file:
        known = weights.official(backbone)
        return LoadReport(backbone, known.name, transform=known.transform, licence=known.licence)
    with torch.random.fork_rng(devices=[]):
        model = backbones.build_backbone(backbone, image_size)
    found = _matched(model, backbone, path, str(path))
    return LoadReport(
        backbone,
        weights.label,
        found.matched,
        found.layout,
        found.prefix,
        found.passed_over,
        found.ignored,
        found.resized,
        normalisation=_normalisation_in_words(weights, backbone),
    )


def _normalisation_in_words(weights: Weights, backbone: str) -> str:
    mean, std = weights.normalises(backbone)
    values = f"mean {', '.join(f'{n:g}' for n in mean)} and std {', '.join(f'{n:g}' for n in std)}"
    if weights.normalisation is not None:
        return f"normalised by {values}"
    return (
        f"the normalisation of {backbone}'s official weights is assumed ({values}); "
        "`weights: {path: …, normalisation: {mean: […], std: […]}}` sets another"
    )


def normalisation(weights: str | Weights, backbone: str) -> Normalisation:
    """Return the mean and standard deviation of each colour channel, for pixels in [0, 1], that these weights expect.

    Random weights, and a checkpoint without a normalisation, are used with that of the official weights.
    """
    return Weights.of(weights).normalises(backbone)


def fingerprint(weights: str | Weights, backbone: str) -> str:
    """Return what identifies the weights: sixteen hex digits of the file's SHA-256, or `none` for random weights.

    A normalisation that the study file gives follows them.
    """
    weights = Weights.of(weights)
    if weights.is_random:
        return "none"
    digits = sha256(_file(weights, backbone))[:16]
    if weights.normalisation is None:
        return digits
    mean, std = weights.normalisation
    return f"{digits}, mean {list(mean)}, std {list(std)}"
