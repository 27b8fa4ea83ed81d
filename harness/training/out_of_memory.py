"""What is done about a task that runs out of memory, rung by rung, before it is given up.

    rung               what it does                                                  the numbers
    caches released    drops images on the device, models at hand, open activations  the same bits
    a fresh worker     a new process, where workers are processes of their own       the same bits
    micro-batches      a step takes half of its batch at a time, then a quarter,     the whole batch's up to rounding,
                       down to MIN_PART_SIZE images; its gradients add up                    or a warning says why not

After each rung the task starts again from its beginning, with the same seed. Behind the last one a trial ends as
`out_of_memory`. Who climbs is `harness.study.executors.run_task`; the device's memory and the machine's are one ladder.
"""

from __future__ import annotations

import dataclasses
import errno
import gc
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from harness.model.backbones import source_of
from harness.model.transfer import BATCHNORM, TransferModel
from harness.training.frozen_features.worker_cache import WorkerCache

MIN_PART_SIZE = 2  # images in a part of a batch: the batch statistics of a single one are none
_HOST = "DefaultCPUAllocator: "
_TEXTS = (
    _HOST,
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
)


@dataclass(frozen=True)
class MemoryFallback:
    """How far a task has come up the ladder; it travels with the task into a fresh worker."""

    released: bool = False
    fresh_worker: bool = False
    micro_batch: int | None = None  # images in one pass; None: a whole batch
    answers: tuple[bool, ...] = ()  # the coordinator's, epoch by epoch: a trial that starts again does not ask again
    seconds: float = 0.0  # spent on tries that ran out of memory

    def next_step(self, batch_size: int, *, replaceable: bool) -> MemoryFallback | None:
        """One rung up; None behind the last one.

        Args:
            replaceable: this process can be replaced by a fresh one.
        """
        if not self.released:
            return dataclasses.replace(self, released=True)
        if replaceable and not self.fresh_worker:
            return dataclasses.replace(self, fresh_worker=True)
        half = _half(self.micro_batch or batch_size)
        if batch_size // len(split_batch(batch_size, half)) < MIN_PART_SIZE:
            return None
        return dataclasses.replace(self, micro_batch=half)

    def describe(self, batch_size: int) -> str | None:
        """The rungs that were climbed, as a record gives them; None where there were none."""
        if not self.released:
            return None
        rungs = ["caches released"] + ["a fresh worker"] * self.fresh_worker
        if self.micro_batch is not None:
            sizes = [_half(batch_size)]
            while sizes[-1] > self.micro_batch:
                sizes.append(_half(sizes[-1]))
            rungs.append(f"micro-batches of {', then '.join(map(str, sizes))} images")
        return f"ran out of memory; what was done: {', then '.join(rungs)}"


NO_FALLBACK = MemoryFallback()


def _half(images: int) -> int:
    return -(-images // 2)


def ran_out(error: BaseException) -> bool:
    """Whether an error says that the device's memory or the machine's is used up.

    torch has an error of its own for a GPU's memory only: a tensor that the machine cannot hold is a RuntimeError.
    """
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)


def reason(error: BaseException) -> str:
    """What an error of that kind says, on one line."""
    lines = str(error).splitlines()
    return lines[0].rpartition(_HOST)[2] if lines else "host memory"


def release(worker_cache: WorkerCache, device: torch.device) -> None:
    """Give back what this process holds beside its task; call it when nothing refers to the failed try any more."""
    worker_cache.clear()
    gc.collect()  # a traceback and the frames it holds are a circle
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def split_batch(images: int, most: int) -> list[slice]:
    """So many images in as few parts as hold `most` at most; their sizes differ by one at most."""
    count = -(-images // most)
    return [slice(a, b) for a, b in pairwise(images * i // count for i in range(count + 1))]


def gradient_differences(model: TransferModel) -> list[str]:
    """Why parts do not give a model, as it stands in train mode, the whole batch's gradients; [] where they do."""
    source = source_of(model.backbone_name)
    training = [layer for layer in model.modules() if layer.training]
    found = []
    if any(isinstance(layer, BATCHNORM) for layer in training):
        found.append("BatchNorm uses the statistics of each micro-batch")
    if any(_is_dropout(layer) or source.is_random(layer) for layer in training):
        found.append("dropout draws other numbers")
    return found


def _is_dropout(layer: nn.Module) -> bool:
    return isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0
