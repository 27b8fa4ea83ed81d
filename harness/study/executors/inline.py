"""Train in the coordinator's own process, one trial at a time: for debuggers and for tests."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from harness.results.records import EpochRecord
from harness.study.executors.base import EpochMessage, FreshWorker, Handler, MakeExecutor, Task, WorkerContext
from harness.study.executors.run_task import run_task_safely, settle


class InlineExecutor:
    """An executor with one place and no process of its own: what would kill a worker kills the study's process."""

    places = 1

    def __init__(self, context: WorkerContext, devices: Sequence[str]) -> None:
        self._context = context
        self._device = torch.device(devices[0])
        self._task: Task | None = None
        self._sharing = context.sharing()

    def submit(self, task: Task) -> None:
        settle(self._context)
        self._task = task

    def poll(self, handle: Handler, timeout: float) -> None:
        if self._task is None:
            return
        task, self._task = self._task, None
        raised: list[BaseException] = []

        def on_epoch(epoch: EpochRecord) -> bool:
            try:
                return handle(EpochMessage(task.task_id, epoch))
            except BaseException as error:  # the coordinator's own (a signal, say), which no trial may swallow
                raised.append(error)
                raise

        answer = run_task_safely(task, self._context, self._device, on_epoch, self._sharing)
        if raised:
            raise raised[0]
        assert not isinstance(answer, FreshWorker)  # this process is the coordinator's: nobody can replace it
        handle(answer)

    def close(self) -> None:
        self._task = None


make: MakeExecutor = InlineExecutor
