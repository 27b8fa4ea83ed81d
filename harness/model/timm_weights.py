"""timm's official weight files, and weight files with the names of the projects that timm took its models from."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

from timm.models import get_pretrained_cfg
from torch import Tensor

from harness.config.backbone_specs import BackboneSpec
from harness.errors import ConfigError, ResourceError
from harness.model import timm_models
from harness.model.timm_names import parse

SAFE_FILE = "model.safetensors"


def official_file(spec: BackboneSpec) -> Path:
    """Return the file of the default weights in the cache of timm's hub; download it if it is not there.

    The hub's cache names a file by its hash. A file that is there is used without asking the hub.

    Raises:
        ConfigError: timm has no weights of this model, or not as a file of tensors.
        ResourceError: the file is neither cached nor reachable.
    """
    wanted = parse(spec.name)
    config = get_pretrained_cfg(wanted.model)
    if wanted.arguments:
        raise ConfigError(
            f"{spec.name} has arguments of its own, so that timm's official weights are of another network; give a "
            "file as `weights`, or `weights: none`."
        )
    if config is None or not config.has_weights:
        raise ConfigError(f"{spec.name} has no official weights in timm; give a file as `weights`, or `weights: none`.")
    if config.hf_hub_id is None or config.custom_load:
        raise ConfigError(
            f"timm's weights of {spec.name} are not on its hub as a file of tensors; download them from {config.url} "
            "and give the file as `weights`."
        )
    return _from_hub(spec.name, config.hf_hub_id, config.hf_hub_filename or SAFE_FILE)


def _from_hub(name: str, repository: str, filename: str) -> Path:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.utils import disable_progress_bars

    repository, _, revision = repository.partition("@")
    known = try_to_load_from_cache(repository, filename, revision=revision or None)
    if isinstance(known, str) and Path(known).is_file():
        return Path(known)
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        return Path(hf_hub_download(repository, filename, revision=revision or None))
    except Exception as error:  # the hub's errors have no common base class, and its transport has others again
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ResourceError(
            f"the official weights of {name} ({filename} of {repository}) are neither cached nor reachable ({why}); "
            "download that file elsewhere and give its path as `weights`, or use `weights: none`."
        ) from error


def translate(given: Mapping[str, Tensor], spec: BackboneSpec, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with timm's names and shapes, by timm's own conversion for this kind of model.

    It knows the names of the original projects (DINOv2, CLIP, Swin, ...) and resizes positions that were learned at
    another image size, and relative positions of another window.
    """
    fixed = timm_models.is_fixed(spec.family)
    model = timm_models.model_like(spec.name, own, fixed=fixed, native=spec.native_size, step=spec.multiple_of)
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return dict(given)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about how timm interpolates
            return dict(convert(dict(given), model))
    except (KeyError, RuntimeError, AssertionError, ValueError, IndexError, AttributeError):
        return dict(given)  # tensors of another network; the caller says what does not fit
