"""Train in the coordinator's own process, one trial at a time, for debuggers and for tests."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from harness.results.records import EpochRecord
from harness.study.executors.base import EpochMessage, FreshWorker, Handler, MakeExecutor, Task, WorkerContext
from harness.study.executors.run_task import configure_torch, run_task_safely


class InlineExecutor:
    """An executor that runs one task at a time in the study's process. A crash of the task ends the study."""

    places = 1

    def __init__(self, context: WorkerContext, devices: Sequence[str]) -> None:
        self._context = context
        self._device = torch.device(devices[0])
        self._task: Task | None = None
        self._worker_cache = context.worker_cache()

    def submit(self, task: Task) -> None:
        configure_torch(self._context)
        self._task = task

    def poll(self, handle: Handler, timeout: float) -> None:
        if self._task is None:
            return
        task, self._task = self._task, None
        raised: list[BaseException] = []

        def on_epoch(epoch: EpochRecord) -> bool:
            try:
                return handle(EpochMessage(task.task_id, epoch))
            except (
                BaseException
            ) as error:  # an error of the coordinator (after a signal, for example), which a trial must not catch
                raised.append(error)
                raise

        message = run_task_safely(task, self._context, self._device, on_epoch, self._worker_cache)
        if raised:
            raise raised[0]
        assert not isinstance(message, FreshWorker)  # the coordinator's process cannot be replaced
        handle(message)

    def close(self) -> None:
        self._task = None


make: MakeExecutor = InlineExecutor
