"""Where a backbone's values come from: the package, torchvision's official files, a user's checkpoint, or chance.

Nothing here runs code from a file: safetensors, or torch.load with weights_only=True. An official file in torch's cache
is hashed against its own name each time it is read (torch.hub does so only when it downloads).
"""

from __future__ import annotations

import hashlib
import http.client
import pickle
import re
import socket
import sys
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import get_weight
from torchvision.models.vision_transformer import interpolate_embeddings

from harness.config.sheets import IMAGENET, Normalisation, sheet
from harness.errors import ConfigError, ResourceError
from harness.model import backbones

SHOWN = 8  # keys listed in an error
PATIENCE = 20.0  # seconds a silent server is waited for
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # heads of GoogLeNet and Inception that are not built


def bundled() -> tuple[str, ...]:
    """The backbones whose weights lie in the package."""
    folder = resources.files("harness.model") / "bundled"
    return tuple(
        sorted(
            entry.name.removesuffix(".safetensors") for entry in folder.iterdir() if entry.name.endswith(".safetensors")
        )
    )


def _bundled_file(backbone: str) -> Path:
    if backbone not in bundled():
        raise ConfigError(
            f"weights: bundled has {' and '.join(bundled())}, but got {backbone}; "
            "take one of these, or `weights: imagenet`, `none` or the path of a checkpoint."
        )
    # The package is installed as files, never as an archive: a study keeps other files beside it too.
    return Path(str(resources.files("harness.model") / "bundled" / f"{backbone}.safetensors"))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _patience() -> Iterator[None]:
    """A limit on how long a silent server is waited for; torch.hub sets none."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _official_file(backbone: str) -> Path:
    """torchvision's file in torch's cache, downloaded if need be, and hashed against the digits in its name."""
    url: str = get_weight(sheet(backbone).weights_enum).url
    name = url.rsplit("/", 1)[-1]
    found = re.search(r"-([0-9a-f]{8,})\.", name)
    if found is None:
        raise ResourceError(f"{name} carries no hash in its name, so it cannot be trusted; use `weights: bundled`.")
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _patience():
                torch.hub.download_url_to_file(url, str(path), hash_prefix=found[1], progress=sys.stderr.isatty())
        except (OSError, http.client.HTTPException, RuntimeError) as error:
            raise ResourceError(
                f"the official weights of {backbone} are neither cached nor reachable ({error}): put {name} "
                f"into {path.parent}, or use `weights: bundled` ({', '.join(bundled())})."
            ) from error
    if not _sha256(path).startswith(found[1]):
        raise ResourceError(
            f"{path} must have a SHA-256 that begins with {found[1]}, as its name says, but it has not: it is damaged "
            "or not the official file. Delete it, and it is fetched again."
        )
    return path


def _file(weights: str, backbone: str) -> Path:
    """The file that holds the values; for a path it must exist."""
    if weights == "bundled":
        return _bundled_file(backbone)
    if weights == "imagenet":
        return _official_file(backbone)
    path = Path(weights).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"weights must be bundled, imagenet, none or the path of a checkpoint, but there is no file {weights}."
        )
    return path


def _read(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a safetensors file or state dict, by name; runs nothing that is in the file."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # refused or read, either way
            content = (
                load_file(path)
                if path.suffix == ".safetensors"
                else torch.load(path, map_location="cpu", weights_only=True)
            )
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{path} must hold tensors only, but it is no state dict or would run code when loaded; nothing was run. "
            "Save `model.state_dict()` with torch.save, or as safetensors."
        ) from error
    except Exception as error:  # a damaged file fails in many ways, and all of them mean the same
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"{path} must be a safetensors file or a state dict, but it cannot be read: {reason}"
        ) from error
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ConfigError(f"{path} must be a state dict (names and tensors), but it holds {type(content).__name__}.")
    if all(key.startswith("module.") for key in content):  # saved from DataParallel
        content = {key.removeprefix("module."): value for key, value in content.items()}
    return dict(content)


def _shown(keys: Iterable[str]) -> str:
    listed = sorted(keys)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more


def _translated(given: Mapping[str, Tensor], backbone: str, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The names and shapes of today's torchvision: old DenseNet keys, ViT positions for another image size."""
    result = {key: value for key, value in given.items() if not key.startswith(_AUXILIARY)}
    if sheet(backbone).family == "densenet":
        result = {re.sub(r"\.(norm|relu|conv)\.([12])\.", r".\1\2.", key): value for key, value in result.items()}
    positions = "encoder.pos_embedding"
    if sheet(backbone).family == "vit" and positions in result and result[positions].ndim == 3:
        side, other = (round((each[positions].shape[1] - 1) ** 0.5) for each in (own, result))
        if side != other and other**2 + 1 == result[positions].shape[1]:
            # torchvision asks for pixels, of which only the number of patches a side matters
            result = dict(interpolate_embeddings(side, 1, OrderedDict(result)))
    return result


def _copy(model: nn.Module, backbone: str, given: Mapping[str, Tensor], source: str) -> None:
    """Copy the values into the backbone; all faults of the file together."""
    own = model.state_dict(keep_vars=True)
    heads = {id(parameter) for parameter in backbones.head(model, backbone).parameters()}
    head_keys = {key for key, value in own.items() if id(value) in heads}
    given = {key: value for key, value in _translated(given, backbone, own).items() if key not in head_keys}
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
        raise ConfigError(f"the keys of {source} must be those of torchvision's {backbone}, but they are not:", faults)
    with torch.no_grad():
        for key, value in given.items():
            wanted[key].copy_(value)


def load(model: nn.Module, backbone: str, weights: str) -> str:
    """Fill a model from `backbones.build_backbone` (all but its head), and say what it was filled with.

    Args:
        weights: `bundled`, `imagenet`, `none` (leaves the model as it is) or the path of a checkpoint: safetensors or a
            state dict with torchvision's names, bare or under `state_dict` or `model`, with or without `module.`.

    Returns:
        The name of the weights: `bundled:resnet18`, `ResNet18_Weights.IMAGENET1K_V1`, `none`, or the file's name.

    Raises:
        ConfigError: no such file or bundled weights, or keys and shapes that do not fit; the model may be kept.
        ResourceError: official weights that are neither cached nor reachable, or do not match their hash.
    """
    if weights == "none":
        return "none"
    path = _file(weights, backbone)
    _copy(model, backbone, _read(path), weights if weights == "bundled" else str(path))
    if weights == "bundled":
        return f"bundled:{backbone}"
    return sheet(backbone).weights_enum if weights == "imagenet" else path.name


def available(weights: str, backbone: str) -> None:
    """Find out before a study starts whether these weights will load: fetches official ones, reads a checkpoint.

    Raises:
        ConfigError, ResourceError: as `load`.
    """
    if weights == "none":
        sheet(backbone)
    elif weights in ("bundled", "imagenet"):
        _file(weights, backbone)
    else:
        path = _file(weights, backbone)
        given = _read(path)
        with torch.random.fork_rng(devices=[]):
            model = backbones.build_backbone(backbone)
        _copy(model, backbone, given, str(path))


def normalisation(weights: str, backbone: str) -> Normalisation:
    """Mean and standard deviation of each colour channel, for pixels in [0, 1], that these weights expect.

    Random weights and a user's checkpoint are taken to expect what the official ones do.
    """
    return IMAGENET if weights == "bundled" else sheet(backbone).normalisation


def fingerprint(weights: str, backbone: str) -> str:
    """Sixteen hex digits of the file's SHA-256, or `none`."""
    return "none" if weights == "none" else _sha256(_file(weights, backbone))[:16]
