"""One lasting worker process for each place: imports, weights and data are paid for once.

A worker has one pipe to its parent and nothing else. When the pipe closes, because the parent ended in
whatever way, a thread of the worker ends it at once; no platform call is needed for that.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from harness.study.executors.base import Died, EpochDone, Handler, Message, Task, WorkerContext, do, settle

_SPAWN = multiprocessing.get_context("spawn")  # fork would copy threads and CUDA state


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    device: str
    task: Task | None = None


class ProcessExecutor:
    """Workers that last; one that dies is replaced, and its task is reported as `Died`."""

    def __init__(self, context: WorkerContext, devices: list[str]) -> None:
        self._context = context
        self._workers = [self._start(device) for device in devices]

    @property
    def places(self) -> int:
        return len(self._workers)

    def pids(self) -> list[int]:
        """Process numbers of the workers."""
        return [worker.process.pid or 0 for worker in self._workers]

    def submit(self, task: Task) -> None:
        for index, worker in enumerate(self._workers):
            if worker.task is not None:
                continue
            if not worker.process.is_alive():  # died while it had nothing to do
                self._workers[index] = worker = self._replace(worker)
            worker.task = task
            with contextlib.suppress(OSError):  # it died this moment: the next poll reports it
                worker.pipe.send(task)
            return
        raise RuntimeError("submit needs a free place")

    def poll(self, handle: Handler, timeout: float) -> None:
        busy = {worker.pipe: index for index, worker in enumerate(self._workers) if worker.task is not None}
        for pipe in wait(list(busy), timeout):
            index = busy[pipe]  # type: ignore[index]
            self._receive(index, handle)

    def close(self) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()
        self._workers = []

    def _receive(self, index: int, handle: Handler) -> None:
        worker = self._workers[index]
        task = worker.task
        assert task is not None  # only busy workers are polled
        try:
            message: Message = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join(5)
            reason = f"the worker died ({_ending(worker.process.exitcode)})"
            self._workers[index] = self._replace(worker)
            handle(Died(task.task_id, reason))
            return
        if not isinstance(message, EpochDone):
            worker.task = None
        answer = handle(message)
        if isinstance(message, EpochDone):
            with contextlib.suppress(OSError):  # the next poll reports the death
                worker.pipe.send(answer)

    def _replace(self, worker: _Worker) -> _Worker:
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        return self._start(worker.device)

    def _start(self, device: str) -> _Worker:
        # Threads that wait by spinning stall one another as soon as anything else wants a core: on two busy
        # cores ResNet-18 trained 14 to 24 images a second spinning and 31 to 42 sleeping.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        ours, theirs = _SPAWN.Pipe()
        process = _SPAWN.Process(target=_main, args=(theirs, self._context, device), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours, device)


def _ending(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"signal {signal.Signals(-exitcode).name}"
    return f"exit code {exitcode}"


def _main(pipe: Connection, context: WorkerContext, device_name: str) -> None:
    """The life of a worker: take a task, do it, say so; end when the pipe does."""
    for name in ("SIGINT", "SIGHUP"):  # meant for the coordinator, which tells us what to do
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    import torch

    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, inbox), daemon=True).start()
    settle(context)
    sharing = context.sharing()
    device = torch.device(device_name)
    while True:
        task: Task = inbox.get()

        def on_epoch(record: Any, task_id: str = task.task_id) -> bool:
            pipe.send(EpochDone(task_id, record))
            return bool(inbox.get())

        try:
            pipe.send(do(task, context, device, on_epoch, sharing))
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{os.path.basename(last.filename)}:{last.lineno}"  # noqa: PTH119 - text, not a path
            pipe.send(Died(task.task_id, f"{type(error).__name__}: {error} ({where})"))


def _listen(pipe: Connection, inbox: queue.SimpleQueue[Any]) -> None:
    while True:
        try:
            inbox.put(pipe.recv())
        except (EOFError, OSError):
            os._exit(0)
