"""Checkpoints: the tensors of a trial's best epoch in a safetensors file.

Only tensors that may differ from the starting weights are stored. The file by which a killed trial continues is another
one: see `harness.training.resume`.
"""

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
    """Return the tensors that may become different from the starting weights, by name and sorted.

    These are the parameters that train in any epoch (`training`) and, if the BatchNorm policy changes buffers, all
    buffers. The tensors are the model's own, not copies.
    """
    tensors = {name: parameter.detach() for name, parameter in model.named_parameters() if name in training}
    if POLICIES[config.batchnorm].moves_buffers:
        tensors |= dict(model.named_buffers())
    return dict(sorted(tensors.items()))


def copy_to_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy the tensors to the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def save_best(path: Path, tensors: Mapping[str, Tensor], classes: tuple[str, ...]) -> None:
    """Write a trial's best tensors, a checksum and the names of its classes, atomically.

    Raises:
        DiskFullError: the disk is full.
    """
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    # Serialised in memory first, because safetensors' own writer hides which error the disk reported.
    atomic_write(path, save(contiguous, metadata={"classes": json.dumps(classes), "crc": str(_checksum(contiguous))}))


def load_best(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Read a file of `save_best`: the tensors, and the names of the classes in the order of the model's outputs.

    Raises:
        ResourceError: the file is missing or cannot be read, or its tensors do not fit its checksum.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        if "crc" in metadata and metadata["crc"] != str(_checksum(tensors)):  # older files have no checksum
            raise ValueError("its checksum does not fit")
        return tensors, tuple(json.loads(metadata.get("classes", "[]")))
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise ResourceError(f"the checkpoint {path.name} cannot be read ({error}); train the trial again") from None


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    """Return a CRC-32 of names, types, shapes and bytes, in the order of the names."""
    value = 0
    for name, tensor in sorted(tensors.items()):
        value = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), value)
        value = zlib.crc32(tensor.cpu().reshape(-1).view(torch.uint8).numpy().data, value)
    return value
