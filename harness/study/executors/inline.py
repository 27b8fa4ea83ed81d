"""Train in the coordinator's own process, one trial at a time: for debuggers and for tests."""

from __future__ import annotations

import torch

from harness.study.executors.base import EpochDone, Handler, Task, WorkerContext, do, settle


class InlineExecutor:
    """An executor with one place and no process of its own. A crash here is the coordinator's."""

    places = 1

    def __init__(self, context: WorkerContext, device: str) -> None:
        self._context = context
        self._device = torch.device(device)
        self._task: Task | None = None
        self._sharing = context.sharing()

    def submit(self, task: Task) -> None:
        settle(self._context)
        self._task = task

    def poll(self, handle: Handler, timeout: float) -> None:
        if self._task is None:
            return
        task, self._task = self._task, None
        handle(do(
            task, self._context, self._device, lambda epoch: handle(EpochDone(task.task_id, epoch)), self._sharing
        ))  # fmt: skip

    def close(self) -> None:
        self._task = None
