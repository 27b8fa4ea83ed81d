"""The initial weights of a backbone: from the package, the source's official file, or a user's checkpoint; or random.

This module chooses the file; `weight_files` reads it and finds the backbone in it. No code from a file is run.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

import torch
from torch import nn

from harness.config.backbone_specs import IMAGENET, Normalisation, backbone_spec
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


def _file(weights: str, backbone: str) -> Path:
    """Return the file of the weights; a user's file must exist."""
    if weights == "bundled":
        return _bundled_file(backbone)
    if weights == "imagenet":
        return backbones.source_of(backbone).official_file(backbone)
    path = Path(weights).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"weights must be bundled, imagenet, none or the path of a checkpoint, but there is no file {weights}."
        )
    return path


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


def _report(found: Match, backbone: str, name: str, assumed: str = "") -> LoadReport:
    return LoadReport(
        backbone,
        name,
        found.matched,
        found.layout,
        found.prefix,
        found.passed_over,
        found.ignored,
        found.resized,
        assumed,
    )


def load(model: nn.Module, backbone: str, weights: str) -> str:
    """Load weights into a model from `backbones.build_backbone`, except into its head; return the weights' name.

    Args:
        weights: `bundled`, `imagenet`, `none` (which leaves the model as it is) or the path of a checkpoint as
            training scripts write it: see `harness.model.weight_files`.

    Returns:
        The name of the weights: `bundled:resnet18`, `ResNet18_Weights.IMAGENET1K_V1`, `none`, or the file's name.

    Raises:
        ConfigError: there is no such file, there are no such bundled weights, or the file does not fit. The model is
            then unchanged.
        ResourceError: official weights are neither cached nor reachable, or do not fit their hash.
    """
    if weights == "none":
        return "none"
    path = _file(weights, backbone)
    found = _matched(model, backbone, path, weights if weights == "bundled" else str(path))
    own = model.state_dict(keep_vars=True)
    with torch.no_grad():
        for key, value in found.values.items():
            own[key].copy_(value)
    return _name(weights, backbone)


def _name(weights: str, backbone: str) -> str:
    if weights == "bundled":
        return f"bundled:{backbone}"
    return backbone_spec(backbone).official_weights if weights == "imagenet" else Path(weights).name


def available(weights: str, backbone: str, image_size: int | None = None) -> LoadReport | None:
    """Check, before a study starts, that these weights can be loaded: download official ones, or read a checkpoint.

    Args:
        image_size: pixels a side that the study trains at; None is the native size.

    Returns:
        What of a user's checkpoint is used; None for other weights.

    Raises:
        ConfigError, ResourceError: as `load`.
    """
    if weights == "none":
        backbone_spec(backbone)
        return None
    path = _file(weights, backbone)
    if weights in ("bundled", "imagenet"):
        return None
    with torch.random.fork_rng(devices=[]):
        model = backbones.build_backbone(backbone, image_size)
    found = _matched(model, backbone, path, str(path))
    return _report(found, backbone, _name(weights, backbone))


def normalisation(weights: str, backbone: str) -> Normalisation:
    """Return the mean and standard deviation of each colour channel, for pixels in [0, 1], that these weights expect.

    Random weights and a user's checkpoint are used with the normalisation of the official weights.
    """
    return IMAGENET if weights == "bundled" else backbone_spec(backbone).normalisation


def fingerprint(weights: str, backbone: str) -> str:
    """Return sixteen hex digits of the file's SHA-256; `none` for random weights."""
    return "none" if weights == "none" else sha256(_file(weights, backbone))[:16]
