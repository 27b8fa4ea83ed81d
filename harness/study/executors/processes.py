"""Run tasks in worker processes that last for the whole session, so that imports, weights and data are loaded once."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from harness.study.executors import forkserver
from harness.study.executors.base import (
    Died,
    EpochMessage,
    FreshWorker,
    Handler,
    MakeExecutor,
    Message,
    Task,
    WorkerContext,
)
from harness.study.executors.worker import main as worker_main

SERVER_STARTS = 3


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    device: str
    task: Task | None = None


class ProcessExecutor:
    """An executor with one process for each device. A process that dies is replaced, its task reported as `Died`."""

    def __init__(self, context: WorkerContext, devices: Sequence[str]) -> None:
        self._context, self._forking = context, forkserver.context()
        self._workers = [self._start(device) for device in devices]

    @property
    def places(self) -> int:
        return len(self._workers)

    def submit(self, task: Task) -> None:
        for index, worker in enumerate(self._workers):
            if worker.task is not None:
                continue
            if not worker.process.is_alive():  # died while it had nothing to do
                self._workers[index] = worker = self._replace(worker)
            _send(worker, task)
            return
        raise RuntimeError("submit needs a free worker, but all are busy")

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
            message: Message | FreshWorker = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join(5)
            reason = f"the worker died ({_ending(worker.process.exitcode)})"
            worker.task = None
            # Before a new worker starts: the same signal may be meant to end the study.
            handle(Died(task.task_id, reason))
            if self._workers[index] is worker:
                self._workers[index] = self._replace(worker)
            return
        if isinstance(message, FreshWorker):
            self._workers[index] = fresh = self._replace(worker)
            _send(fresh, message.task)
            return
        if not isinstance(message, EpochMessage):
            worker.task = None
        go_on = handle(message)
        if isinstance(message, EpochMessage):
            with contextlib.suppress(OSError):  # the worker died; the next poll reports it
                worker.pipe.send(go_on)

    def _replace(self, worker: _Worker) -> _Worker:
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        return self._start(worker.device)

    def _start(self, device: str) -> _Worker:
        """Start a worker; if the fork server has died, start that again.

        Raises:
            ConnectionError: the server dies again and again.
        """
        for left in reversed(range(SERVER_STARTS)):
            forkserver.warm_up()
            ours, theirs = self._forking.Pipe()
            process = self._forking.Process(target=worker_main, args=(theirs, self._context, device), daemon=True)  # type: ignore[attr-defined]
            try:
                process.start()
            except (EOFError, ConnectionError, FileNotFoundError) as error:
                ours.close()
                if not left:
                    raise ConnectionError(f"the server that starts workers died {SERVER_STARTS} times") from error
                self._between_starts()
                forkserver.restart()
                continue
            finally:
                theirs.close()
            return _Worker(process, ours, device)
        raise AssertionError("the loop returns or raises")

    @staticmethod
    def _between_starts() -> None:
        """Wait a moment: the signal that ended the server may be meant to end the study, and is then handled first."""
        time.sleep(0.1)


make: MakeExecutor = ProcessExecutor


def _send(worker: _Worker, task: Task) -> None:
    worker.task = task
    with contextlib.suppress(OSError):  # the worker died; the next poll reports it
        worker.pipe.send(task)


def _ending(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"signal {signal.Signals(-exitcode).name}"
    return f"exit code {exitcode}"
