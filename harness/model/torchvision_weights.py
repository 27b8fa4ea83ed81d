"""torchvision's official weight files, and the translation of a file's tensors into the shapes of a model.

The name of an official file contains its hash. The hash is checked each time the file is read; torch.hub checks it only
after a download.
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

SERVER_TIMEOUT = 20.0  # seconds without an answer


@contextmanager
def _server_timeout() -> Iterator[None]:
    """Limit the time of waiting for a server inside the block; torch.hub sets no limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SERVER_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def official_file(backbone: str, weights: str) -> Path:
    """Return torchvision's file in torch's cache; download it if necessary, and check it against the hash in its name.

    Raises:
        ResourceError: the file has no hash in its name, is neither cached nor reachable, or does not fit its hash.
    """
    url: str = get_weight(weights).url
    name = url.rsplit("/", 1)[-1]
    found = re.search(r"-([0-9a-f]{8,})\.", name)
    if found is None:
        raise ResourceError(
            f"the file of official weights must have a hash in its name, but {name} has none, so that it cannot be "
            "checked; use `weights: bundled`."
        )
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _server_timeout():
                torch.hub.download_url_to_file(url, str(path), hash_prefix=found[1], progress=sys.stderr.isatty())
        except (OSError, http.client.HTTPException, RuntimeError) as error:
            raise ResourceError(
                f"the official weights of {backbone} are neither cached nor reachable ({error}): put {name} "
                f"into {path.parent}, or use `weights: bundled` ({', '.join(bundled())})."
            ) from error
    if not sha256(path).startswith(found[1]):
        raise ResourceError(
            f"{path} must have a SHA-256 that begins with {found[1]}, as in its name, but it has another one: it is "
            "damaged or not the official file. Delete it; it is then downloaded again."
        )
    return path


def translate(given: Mapping[str, Tensor], spec: BackboneSpec, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with the shapes of the model: interpolate ViT's positions."""
    result = dict(given)
    positions = "encoder.pos_embedding"
    if spec.family == "vit" and positions in result and result[positions].ndim == 3:
        side, other = (round((each[positions].shape[1] - 1) ** 0.5) for each in (own, result))
        if side != other and other**2 + 1 == result[positions].shape[1]:
            # The first argument is in pixels, but only the number of patches a side matters.
            result[positions] = result[positions].float()  # half precision cannot be interpolated on every CPU
            result = dict(interpolate_embeddings(side, 1, OrderedDict(result)))
    return result
