"""torchvision's official weight files, and weight files under torchvision's older names.

An official file in torch's cache is hashed against its own name each time it is read (torch.hub does so only when it
downloads).
"""

from __future__ import annotations

import http.client
import re
import socket
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models import get_weight
from torchvision.models.vision_transformer import interpolate_embeddings

from harness.config.backbone_specs import BackboneSpec
from harness.errors import ResourceError
from harness.model.weights import bundled, sha256

PATIENCE = 20.0  # seconds a silent server is waited for
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # heads of GoogLeNet and Inception that are not built


@contextmanager
def _patience() -> Iterator[None]:
    """A limit on how long a silent server is waited for; torch.hub sets none."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def official_file(spec: BackboneSpec) -> Path:
    """Return torchvision's file in torch's cache, downloaded if need be, and hashed against the digits in its name."""
    url: str = get_weight(spec.official_weights).url
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
                f"the official weights of {spec.name} are neither cached nor reachable ({error}): put {name} "
                f"into {path.parent}, or use `weights: bundled` ({', '.join(bundled())})."
            ) from error
    if not sha256(path).startswith(found[1]):
        raise ResourceError(
            f"{path} must have a SHA-256 that begins with {found[1]}, as its name says, but it has not: it is damaged "
            "or not the official file. Delete it, and it is fetched again."
        )
    return path


def translate(given: Mapping[str, Tensor], spec: BackboneSpec, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the names and shapes of today's torchvision: old DenseNet keys, ViT positions for another image size."""
    result = {key: value for key, value in given.items() if not key.startswith(_AUXILIARY)}
    if spec.family == "densenet":
        result = {re.sub(r"\.(norm|relu|conv)\.([12])\.", r".\1\2.", key): value for key, value in result.items()}
    positions = "encoder.pos_embedding"
    if spec.family == "vit" and positions in result and result[positions].ndim == 3:
        side, other = (round((each[positions].shape[1] - 1) ** 0.5) for each in (own, result))
        if side != other and other**2 + 1 == result[positions].shape[1]:
            # torchvision asks for pixels, of which only the number of patches a side matters
            result = dict(interpolate_embeddings(side, 1, OrderedDict(result)))
    return result
