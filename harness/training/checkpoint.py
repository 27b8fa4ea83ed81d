"""What a trial leaves on disk: its best epoch, to be used again, and where it stood, to go on after a kill."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from harness.config.trial import TrialConfig
from harness.errors import ResourceError
from harness.model.transfer import TransferModel


def moving(model: TransferModel, config: TrialConfig, training: frozenset[str]) -> dict[str, Tensor]:
    """The tensors that may come to differ from the weights: what trains in any epoch (`training`), and every buffer
    where the policy touches some. By name, sorted; they are the model's own, not copies."""
    tensors = {name: parameter.detach() for name, parameter in model.named_parameters() if name in training}
    if config.batchnorm not in ("frozen", "fixed_stats"):
        tensors |= dict(model.named_buffers())
    return dict(sorted(tensors.items()))


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def save_best(path: Path, tensors: Mapping[str, Tensor], classes: tuple[str, ...]) -> None:
    """Write a trial's best tensors and the names of its classes under a temporary name and rename: a reader sees the
    whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, temporary, metadata={"classes": json.dumps(classes)})
    temporary.replace(path)


def load_best(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """What `save_best` wrote: the tensors, and the classes in the order they were trained in.

    Raises:
        ResourceError: the file is gone or cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            classes = tuple(json.loads((file.metadata() or {}).get("classes", "[]")))
            return {name: file.get_tensor(name) for name in file.keys()}, classes  # noqa: SIM118 - not a dict
    except (OSError, ValueError, SafetensorError) as error:
        raise ResourceError(f"the checkpoint {path.name} cannot be read ({error}); train the trial again") from None


@dataclass(frozen=True)
class Standing:
    """Where a trial stood behind an epoch: all that it needs to go on as if nothing had happened.

    Random numbers need nothing kept: every draw derives from (seed, epoch, step).
    """

    identity: str  # of job, data and weights; a file of another one is not taken
    epochs: list[dict[str, Any]]  # EpochRecords as JSON values
    best_tensors: dict[str, Tensor]
    warnings: list[str]
    seconds: float  # spent so far
    tensors: dict[str, Tensor]
    optimizer: dict[str, Any]
    average: dict[str, Any] | None

    def save(self, path: Path) -> None:
        """Write it under a temporary name and rename."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.partial")
        torch.save(vars(self), temporary)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path, identity: str) -> Standing | None:
        """What lies there, or None: nothing, a damaged file, or one of another trial. Runs nothing that is in it."""
        try:
            standing = cls(**torch.load(path, map_location="cpu", weights_only=True))
        except Exception:  # a damaged file fails in many ways, and the way out of all is to train from the start
            return None
        return standing if standing.identity == identity else None


def identity(*parts: object) -> str:
    """Sixteen hex digits that stand for these values, compared by their text."""
    return hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).hexdigest()[:16]
