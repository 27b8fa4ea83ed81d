"""The initial weights of a backbone: from the package, the source's official file, or a user's checkpoint; or random.

No code from a file is run: files are safetensors, or are read by torch.load with weights_only=True.
"""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from harness.config.backbone_specs import IMAGENET, Normalisation, backbone_spec
from harness.errors import ConfigError
from harness.model import backbones

SHOWN = 8  # number of keys that an error lists


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


def _read(path: Path) -> Mapping[str, Tensor]:
    """Return the tensors of a safetensors file or state dict by name, without running code from the file."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # not needed: it is read or refused
            content = (
                load_file(path)
                if path.suffix == ".safetensors"
                else torch.load(path, map_location="cpu", weights_only=True)
            )
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{path} must contain tensors only, but it is not a state dict, or it would run code when it is loaded. "
            "Nothing was run. Save `model.state_dict()` with torch.save, or as safetensors."
        ) from error
    except Exception as error:  # damaged files cause many kinds of errors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"{path} must be a safetensors file or a state dict, but it cannot be read: {reason}"
        ) from error
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ConfigError(f"{path} must be a state dict (names and tensors), but it is a {type(content).__name__}.")
    if all(key.startswith("module.") for key in content):  # saved from DataParallel
        content = {key.removeprefix("module."): value for key, value in content.items()}
    return dict(content)


def _shown(keys: Iterable[str]) -> str:
    listed = sorted(keys)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more


def _copy(model: nn.Module, backbone: str, given: Mapping[str, Tensor], source: str) -> None:
    """Copy the values into the backbone; raise ConfigError with all faults of the file."""
    own = model.state_dict(keep_vars=True)
    heads = {id(parameter) for parameter in backbones.head(model, backbone).parameters()}
    head_keys = {key for key, value in own.items() if id(value) in heads}
    given = {
        key: value
        for key, value in backbones.source_of(backbone).translate(given, backbone, own).items()
        if key not in head_keys
    }
    wanted = {key: value for key, value in own.items() if key not in head_keys}
    missing = [key for key in wanted if key not in given and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in given if key not in wanted]
    shapes = [
        f"{key} is {tuple(given[key].shape)}, not {tuple(wanted[key].shape)}"
        for key in wanted
        if key in given and given[key].shape != wanted[key].shape
    ]
    faults = [
        f"{len(found)} {what}: {_shown(found)}"
        for what, found in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if found
    ]
    if faults:
        raise ConfigError(f"the keys of {source} must be those of its library's {backbone}, but they are not:", faults)
    with torch.no_grad():
        for key, value in given.items():
            wanted[key].copy_(value)


def load(model: nn.Module, backbone: str, weights: str) -> str:
    """Load weights into a model from `backbones.build_backbone`, except into its head; return the weights' name.

    Args:
        weights: `bundled`, `imagenet`, `none` (which leaves the model as it is) or the path of a checkpoint:
            safetensors, or a state dict with the names of the backbone's library, at the top level or under
            `state_dict` or `model`, with or without the prefix `module.`.

    Returns:
        The name of the weights: `bundled:resnet18`, `ResNet18_Weights.IMAGENET1K_V1`, `none`, or the file's name.

    Raises:
        ConfigError: there is no such file, there are no such bundled weights, or keys or shapes do not fit. The model
            is then unchanged.
        ResourceError: official weights are neither cached nor reachable, or do not fit their hash.
    """
    if weights == "none":
        return "none"
    path = _file(weights, backbone)
    _copy(model, backbone, _read(path), weights if weights == "bundled" else str(path))
    if weights == "bundled":
        return f"bundled:{backbone}"
    return backbone_spec(backbone).official_weights if weights == "imagenet" else path.name


def available(weights: str, backbone: str) -> None:
    """Check, before a study starts, that these weights can be loaded: download official ones, or read a checkpoint.

    Raises:
        ConfigError, ResourceError: as `load`.
    """
    if weights == "none":
        backbone_spec(backbone)
    elif weights in ("bundled", "imagenet"):
        _file(weights, backbone)
    else:
        path = _file(weights, backbone)
        given = _read(path)
        with torch.random.fork_rng(devices=[]):
            model = backbones.build_backbone(backbone)
        _copy(model, backbone, given, str(path))


def normalisation(weights: str, backbone: str) -> Normalisation:
    """Return the mean and standard deviation of each colour channel, for pixels in [0, 1], that these weights expect.

    Random weights and a user's checkpoint are used with the normalisation of the official weights.
    """
    return IMAGENET if weights == "bundled" else backbone_spec(backbone).normalisation


def fingerprint(weights: str, backbone: str) -> str:
    """Return sixteen hex digits of the file's SHA-256; `none` for random weights."""
    return "none" if weights == "none" else sha256(_file(weights, backbone))[:16]
