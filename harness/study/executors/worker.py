"""The life of a worker process: take a task, do it, say so; end when the parent does.

A worker has one pipe to its parent and nothing else. When the pipe closes, because the parent ended in
whatever way, a thread of the worker ends it at once; no platform call is needed for that.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
from multiprocessing.connection import Connection
from typing import Any

import torch

from harness.study.executors.base import EpochMessage, Task, WorkerContext
from harness.study.executors.run_task import run_task_safely, settle


def main(pipe: Connection, context: WorkerContext, device_name: str) -> None:
    """Where a worker process begins, and where it stays."""
    for name in ("SIGINT", "SIGHUP"):  # meant for the coordinator, which tells us what to do
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the server that we were forked from is deaf to it
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, inbox), daemon=True).start()
    settle(context)
    sharing = context.sharing()
    device = torch.device(device_name)
    while True:
        task: Task = inbox.get()

        def on_epoch(record: Any, task_id: str = task.task_id) -> bool:
            pipe.send(EpochMessage(task_id, record))
            return bool(inbox.get())

        pipe.send(run_task_safely(task, context, device, on_epoch, sharing, replaceable=True))


def _listen(pipe: Connection, inbox: queue.SimpleQueue[Any]) -> None:
    while True:
        try:
            inbox.put(pipe.recv())
        except (EOFError, OSError):
            os._exit(0)
