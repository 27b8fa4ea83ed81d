"""How much memory and disk a study will hold, reckoned before anything is allocated, and whether that is there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import psutil
import torch

from harness.config.backbone_costs import cost
from harness.config.space import SearchSpace, backbones, space
from harness.config.study import StudyConfig
from harness.config.trial import DEPTH_MAX
from harness.errors import DiskFullError, ResourceError
from harness.model.freezing import unfreeze_last
from harness.model.meta import build_shapes
from harness.study.prepare import Prepared
from harness.training.frozen_features.cache_plan import side_of

COPIES = 6  # of a backbone in a worker: as it starts, the contract's copy, the trial's, its gradients, two moments
LIBRARIES = 500_000_000  # bytes of a worker's own, torch and the interpreter; 0.4 to 0.5 GB were seen


@dataclass(frozen=True)
class Memory:
    """Bytes. A worker's are those of its largest trial, and each worker needs them."""

    images: int  # decoded, mapped by every worker: the system may drop and read them again
    models: int
    step: int  # what a training step keeps from its forward pass for its backward pass
    step_of: str  # the backbone with the largest step
    workers: int
    free: int  # on the device that trains

    @property
    def worker(self) -> int:
        """One worker's."""
        return LIBRARIES + self.models + self.step

    @property
    def resident(self) -> int:
        """All that will be in memory at once."""
        return self.images + self.workers * self.worker


def reckon(prepared: Prepared, devices: list[str]) -> Memory:
    """What the study's largest configurations will hold, and what is free now."""
    study = prepared.study
    classes = len(prepared.context.classes)
    batch = max(int(v) for s in study.strategies for v in space(study, s).ranges["batch_size"].ends())
    depth = max(_depth(space(study, strategy)) for strategy in study.strategies)
    steps, models = {}, 0
    for backbone in backbones(study):
        steps[backbone] = step_bytes(backbone, classes, side_of(study, backbone), batch, depth)
        models = max(models, COPIES * _parameter_bytes(backbone, classes, side_of(study, backbone)))
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


def check(prepared: Prepared, devices: list[str], say: Callable[[str], None]) -> None:
    """Refuse what cannot fit into the machine's memory; say what cannot fit into a GPU's.

    A trial that runs out of a GPU's memory is tried again in smaller pieces (`harness.training.out_of_memory`). One
    that runs out of the machine's is killed by the system, perhaps with everything else.

    Raises:
        ResourceError: with what is needed, what is free and the ways out.
    """
    found = reckon(prepared, devices)
    needed = found.workers * found.worker
    if needed <= found.free:
        return
    text = (
        f"the study needs about {_gb(needed)} of memory ({found.workers} worker(s); a step of {found.step_of} alone "
        f"{_gb(found.step)}), but {_gb(found.free)} are free"
    )
    if devices[0].startswith("cuda"):
        say(f"{text}; the largest trials will train in micro-batches, or will end as out of memory.")
        return
    raise ResourceError(
        f"{text}; lower batch_size, image_size, unfreeze_depth or workers, or leave {found.step_of} out."
    )


def check_disk(prepared: Prepared) -> None:
    """Refuse a study whose models would not fit on the disk. Images and shared activations are looked after elsewhere.

    Raises:
        DiskFullError: with what is needed, what is free and the ways out.
    """
    folder = prepared.folder.path.parent
    needed, free = models_on_disk(prepared.study), shutil.disk_usage(folder).free
    if needed > free:
        raise DiskFullError(
            f"the models of the study {prepared.name} need up to {_gb(needed)} in {folder}, but {free} bytes are free: "
            "make room, lower confirmation.seeds or unfreeze_depth, or move the state with HARNESS_HOME."
        )


def models_on_disk(study: StudyConfig) -> int:
    """Bytes of all models that the study keeps: of each side the best of the search, and all that come after it."""
    seeds = study.confirmation.seeds
    after = (study.confirmation.top + 1) * seeds + study.controlled.changes * min(study.controlled.seeds, seeds)
    after += sum(fraction < 1 for fraction in study.data_sizes) * seeds
    largest = 0
    for strategy in study.strategies:
        depth = _depth(space(study, strategy))
        known = [cost(backbone) for backbone in backbones(study)]
        largest += max(int(4 * sum(c.parameters) * c.parameter_share(depth)) for c in known)
    return largest * (1 + after)


def _depth(here: SearchSpace) -> int:
    """The largest number of stages, counted from the head, that gradients go through."""
    depth = max(int(value) for value in here.ranges["unfreeze_depth"].ends())
    return DEPTH_MAX if depth and "stem" in here.ranges["unfreeze_from"].values() else depth


@cache
def step_bytes(backbone: str, classes: int, side: int, batch: int, depth: int) -> int:
    """What a training step with `depth` stages unfrozen keeps for its backward pass, in float32."""
    model = build_shapes(backbone, classes, image_size=side).eval()
    unfreeze_last(model, depth)
    return kept_bytes(model, torch.empty(batch, 3, side, side, device="meta"))


def kept_bytes(model: torch.nn.Module, images: torch.Tensor) -> int:
    """Bytes of all that a forward pass keeps for its backward pass, each once, the model's own tensors left out."""
    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no address is given out twice

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
def _parameter_bytes(backbone: str, classes: int, side: int) -> int:
    return 4 * sum(p.numel() for p in build_shapes(backbone, classes, image_size=side).parameters())


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
