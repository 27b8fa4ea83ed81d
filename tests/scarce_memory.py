"""Processes with little memory: passes that train too much at once run out of it. Workers import this by its name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness.model.transfer import TransferModel
from harness.study.executors.base import WorkerContext
from harness.training.frozen_features.worker_cache import WorkerCache

MESSAGE = "CUDA out of memory. Tried to allocate 2 GiB"


@dataclass(frozen=True)
class Scarce(WorkerContext):
    """A context whose processes have room for a training pass of so many images times (1 + stages that train).

    It changes `TransferModel.forward` in each process that trains: a test that trains in its own puts it back.
    """

    log: Path = Path()  # a line "pid images stages" for each pass that did not fit
    room: int = 1 << 30
    never: tuple[int, ...] = ()  # numbers of training stages for which nothing has room
    spoiled_first: bool = False  # nothing fits into the first process that trains

    def worker_cache(self) -> WorkerCache:
        """As ever, in a process that has little memory from now on."""
        self._limit()
        return super().worker_cache()

    def _limit(self) -> None:
        real = TransferModel.forward

        def forward(model: TransferModel, x: torch.Tensor, first: int = 0) -> torch.Tensor:
            if model.training and not self._fits(len(x), len(model.unfrozen)):
                raise torch.OutOfMemoryError(MESSAGE)
            return real(model, x, first)

        TransferModel.forward = forward  # type: ignore[method-assign]

    def _fits(self, images: int, stages: int) -> bool:
        pids = [pid for pid, *_ in misses(self.log)]
        spoiled = self.spoiled_first and (not pids or pids[0] == os.getpid())
        if not spoiled and stages not in self.never and images * (1 + stages) <= self.room:
            return True
        with self.log.open("a") as log:
            log.write(f"{os.getpid()} {images} {stages}\n")
        return False


def misses(log: Path) -> list[tuple[int, int, int]]:
    """(pid, images, stages) of each pass that did not fit, in order."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [(int(pid), int(images), int(stages)) for pid, images, stages in map(str.split, lines)]


def scarce(context: WorkerContext, log: Path, **limits: Any) -> Scarce:
    """The same context with little memory."""
    return Scarce(**{name: getattr(context, name) for name in WorkerContext.__dataclass_fields__}, log=log, **limits)
