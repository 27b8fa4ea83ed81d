"""The sequence of fallbacks for a task that runs out of memory.

    fallback         what it does                                               effect on the numbers
    caches released  frees images on the device, kept models, open activations  none, bit for bit
    a fresh worker   starts a new process, if workers are processes             none, bit for bit
    micro-batches    divides each batch into halves, then quarters, down to     rounding; a warning names any other
                     MIN_PART_SIZE images, and adds their gradients             difference

After each fallback the task starts again from its beginning, with the same seed. If the last one does not help, a trial
ends as `out_of_memory`. The sequence is the same for the memory of the device and of the machine.

This module describes the fallbacks; `harness.study.executors.run_task` carries them out.
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

MIN_PART_SIZE = 2  # images in a micro-batch: a single image has no batch statistics
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
    """The fallbacks that an out-of-memory task has already used. Sent along when the task moves to a new worker."""

    released: bool = False
    fresh_worker: bool = False
    micro_batch: int | None = None  # images in one forward pass; None: a whole batch
    answers: tuple[bool, ...] = ()  # the coordinator's answers, one for each epoch, kept for the next attempt
    seconds: float = 0.0  # spent on attempts that ran out of memory

    def next_step(self, batch_size: int, *, replaceable: bool) -> MemoryFallback | None:
        """Return the state with the next fallback, or None if there is no other one.

        Args:
            batch_size: images in a whole batch.
            replaceable: whether this process can be replaced by a fresh one.
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
        """Return a sentence for the record that names the fallbacks that were used; None if there were none."""
        if not self.released:
            return None
        steps = ["caches released"] + ["a fresh worker"] * self.fresh_worker
        if self.micro_batch is not None:
            sizes = [_half(batch_size)]
            while sizes[-1] > self.micro_batch:
                sizes.append(_half(sizes[-1]))
            steps.append(f"micro-batches of {', then '.join(map(str, sizes))} images")
        return f"ran out of memory; what was done: {', then '.join(steps)}"


NO_FALLBACK = MemoryFallback()


def _half(images: int) -> int:
    return -(-images // 2)


def ran_out(error: BaseException) -> bool:
    """Return whether an error means that the memory of the device or of the machine is used up.

    torch has an exception class for a GPU's memory only. For the machine's memory it raises a RuntimeError.
    """
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)


def reason(error: BaseException) -> str:
    """Return the message of an out-of-memory error on one line."""
    lines = str(error).splitlines()
    return lines[0].rpartition(_HOST)[2] if lines else "host memory"


def release(worker_cache: WorkerCache, device: torch.device) -> None:
    """Free the memory that this process holds in caches. Call it when nothing refers to the failed attempt any more."""
    worker_cache.clear()
    gc.collect()  # a traceback and its frames refer to one another
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def split_batch(images: int, max_size: int) -> list[slice]:
    """Divide a batch into as few parts as possible of at most `max_size` images; sizes differ by one at most."""
    count = -(-images // max_size)
    return [slice(a, b) for a, b in pairwise(images * i // count for i in range(count + 1))]


def gradient_differences(model: TransferModel) -> list[str]:
    """Return why micro-batches do not give this model, in its current mode, the gradients of the whole batch.

    The list is empty if they do, apart from rounding.
    """
    source = source_of(model.backbone_name)
    training = [layer for layer in model.modules() if layer.training]
    reasons = []
    if any(isinstance(layer, BATCHNORM) for layer in training):
        reasons.append("BatchNorm uses the statistics of each micro-batch")
    if any(_is_dropout(layer) or source.is_random(layer) for layer in training):
        reasons.append("dropout draws other numbers")
    return reasons


def _is_dropout(layer: nn.Module) -> bool:
    return isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0
