"""What a trial leaves on disk: its best epoch, to be used again, and where it stood, to go on after a kill."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from harness.atomic import atomic_write
from harness.config.batchnorm_policy import POLICIES
from harness.config.trial import TrialConfig
from harness.errors import ResourceError
from harness.model.transfer import TransferModel


def changing_tensors(model: TransferModel, config: TrialConfig, training: frozenset[str]) -> dict[str, Tensor]:
    """The tensors that may come to differ from the weights: what trains in any epoch (`training`), and every buffer
    where the policy touches some. By name, sorted; they are the model's own, not copies."""
    tensors = {name: parameter.detach() for name, parameter in model.named_parameters() if name in training}
    if POLICIES[config.batchnorm].moves_buffers:
        tensors |= dict(model.named_buffers())
    return dict(sorted(tensors.items()))


def copy_to_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def save_best(path: Path, tensors: Mapping[str, Tensor], classes: tuple[str, ...]) -> None:
    """Write a trial's best tensors, a checksum and the names of its classes; a reader sees the whole file or none.

    Raises:
        DiskFullError: it does not fit.
    """
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    # made in memory first: safetensors' own writer hides which error the disk gave
    atomic_write(path, save(contiguous, metadata={"classes": json.dumps(classes), "crc": str(_checksum(contiguous))}))


def load_best(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """What `save_best` wrote: the tensors, and the classes in the order they were trained in.

    Raises:
        ResourceError: the file is gone, cannot be read, or its tensors are not those that were written.
    """
    try:
        with safe_open(path, framework="pt") as file:
            noted = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        if "crc" in noted and noted["crc"] != str(_checksum(tensors)):  # files from before it was noted have none
            raise ValueError("its checksum does not fit")
        return tensors, tuple(json.loads(noted.get("classes", "[]")))
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise ResourceError(f"the checkpoint {path.name} cannot be read ({error}); train the trial again") from None


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    """Over names, types, shapes and bytes, in the order of the names."""
    value = 0
    for name, tensor in sorted(tensors.items()):
        value = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), value)
        value = zlib.crc32(tensor.cpu().reshape(-1).view(torch.uint8).numpy().data, value)
    return value
