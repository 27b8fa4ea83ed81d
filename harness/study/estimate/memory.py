"""Estimate how much memory and disk a study will need, and refuse it before it starts if that is not available."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import psutil
import torch

from harness.config.backbone_costs import cost
from harness.config.space import SearchSpace, backbones, side_of, space
from harness.config.study import StudyConfig
from harness.config.trial import DEPTH_MAX
from harness.errors import DiskFullError, ResourceError
from harness.model.freezing import unfreeze_last
from harness.model.meta import build_shapes
from harness.study.prepare import Prepared

COPIES = 6  # of a backbone in a worker: the initial model, the contract's copy, the trial's, gradients, two moments
LIBRARIES = 500_000_000  # bytes of torch and the interpreter in each worker; 0.4 to 0.5 GB were measured


@dataclass(frozen=True)
class Memory:
    """The memory that a study needs, in bytes. Models and step are those of the largest trial, in each worker."""

    images: int  # decoded and mapped by every worker; the system may drop them and read them again
    models: int
    step: int  # tensors that a training step keeps from its forward pass for its backward pass
    step_of: str  # the backbone with the largest step
    workers: int
    free: int  # memory that is free now on the device that trains

    @property
    def worker(self) -> int:
        """Bytes of one worker."""
        return LIBRARIES + self.models + self.step

    @property
    def resident(self) -> int:
        """Bytes of the images and all workers together."""
        return self.images + self.workers * self.worker


def estimate_memory(prepared: Prepared, devices: list[str]) -> Memory:
    """Estimate the memory of the study's largest configurations, and read how much is free now."""
    study = prepared.study
    classes = len(prepared.context.classes)
    batch = max(int(v) for s in study.strategies for v in space(study, s).ranges["batch_size"].ends())
    depth = max(_depth(space(study, strategy)) for strategy in study.strategies)
    channels = prepared.dataset.channels
    steps, models = {}, 0
    for backbone in backbones(study):
        side = max(side_of(study, backbone, entry) for entry in study.weights.entries)
        steps[backbone] = step_bytes(backbone, classes, side, batch, depth, channels)
        models = max(models, COPIES * _parameter_bytes(backbone, classes, side, channels))
    largest = max(steps, key=lambda name: steps[name])
    on_gpu = devices[0].startswith("cuda")
    return Memory(
        images=sum(path.stat().st_size for path in prepared.context.images.values()),
        models=models,
        step=steps[largest],
        step_of=largest,
        workers=1 if on_gpu else len(devices),  # every GPU has a worker of its own
        free=torch.cuda.mem_get_info(devices[0])[0] if on_gpu else psutil.virtual_memory().available,
    )


def check_memory(prepared: Prepared, devices: list[str], say: Callable[[str], None]) -> None:
    """Refuse a study that does not fit into the machine's memory; warn if it does not fit into a GPU's memory.

    A trial that runs out of GPU memory is tried again in smaller parts (`harness.training.out_of_memory`). A trial that
    runs out of the machine's memory is killed by the system, perhaps together with other processes.

    Raises:
        ResourceError: the study needs more memory than is free.
    """
    memory = estimate_memory(prepared, devices)
    needed = memory.workers * memory.worker
    if needed <= memory.free:
        return
    text = (
        f"the study needs about {_gb(needed)} of memory ({memory.workers} worker(s); a step of {memory.step_of} alone "
        f"{_gb(memory.step)}), but {_gb(memory.free)} are free"
    )
    if devices[0].startswith("cuda"):
        say(f"{text}; the largest trials will train in micro-batches, or will end as out of memory.")
        return
    raise ResourceError(
        f"{text}; lower batch_size, image_size, unfreeze_depth or workers, or leave {memory.step_of} out."
    )


def check_disk(prepared: Prepared) -> None:
    """Refuse a study whose models would not fit on the disk. Images and shared activations are not part of this check.

    Raises:
        DiskFullError: the models need more space than is free.
    """
    folder = prepared.folder.path.parent
    needed, free = models_on_disk(prepared.study), shutil.disk_usage(folder).free
    if needed > free:
        raise DiskFullError(
            f"the models of the study {prepared.name} need up to {_gb(needed)} in {folder}, but {free} bytes are free: "
            "make room, lower confirmation.seeds or unfreeze_depth, or move the state with HARNESS_HOME."
        )


def models_on_disk(study: StudyConfig) -> int:
    """Return the bytes of all models that the study keeps: each strategy's best of the search, and all later ones."""
    seeds = study.confirmation.seeds
    after = (study.confirmation.top + 1) * seeds + study.controlled.changes * min(study.controlled.seeds, seeds)
    after += sum(fraction < 1 for fraction in study.data_sizes) * seeds
    largest = 0
    for strategy in study.strategies:
        depth = _depth(space(study, strategy))
        known = [cost(backbone) for backbone in backbones(study)]
        largest += max(int(4 * sum(c.parameters) * c.parameter_share(depth)) for c in known)
    return largest * (1 + after)


def _depth(searched: SearchSpace) -> int:
    """Return the largest number of stages, counted from the head, that gradients go through."""
    depth = max(int(value) for value in searched.ranges["unfreeze_depth"].ends())
    return DEPTH_MAX if depth and "stem" in searched.ranges["unfreeze_from"].values() else depth


@cache
def step_bytes(backbone: str, classes: int, side: int, batch: int, depth: int, channels: int = 3) -> int:
    """Return the bytes that a float32 training step with `depth` unfrozen stages keeps for its backward pass."""
    model = build_shapes(backbone, classes, image_size=side, in_channels=channels).eval()
    unfreeze_last(model, depth)
    return kept_bytes(model, torch.empty(batch, channels, side, side, device="meta"))


def kept_bytes(model: torch.nn.Module, images: torch.Tensor) -> int:
    """Return the bytes of tensors that a forward pass keeps for the backward pass, without the model's own tensors."""
    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}  # they are held here, so that no address is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    def unpack(tensor: Any) -> Any:
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        answers = model(images)
    del answers
    return sum(storage.nbytes() for storage in kept.values())


@cache
def _parameter_bytes(backbone: str, classes: int, side: int, channels: int) -> int:
    model = build_shapes(backbone, classes, image_size=side, in_channels=channels)
    return 4 * sum(p.numel() for p in model.parameters())


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
