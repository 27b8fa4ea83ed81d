"""The main loop of a worker process: receive a task, run it, send the result; end when the parent ends.

A worker has only one pipe to its parent. When the parent ends in any way, the pipe closes, and a thread of the worker
ends the process at once. This needs no platform-specific call.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
from multiprocessing.connection import Connection
from typing import Any

import torch

from harness.config.backbone_specs import permit
from harness.study.executors.base import EpochMessage, Task, WorkerContext
from harness.study.executors.run_task import configure_torch, run_task_safely


def main(pipe: Connection, context: WorkerContext, device_name: str) -> None:
    """Run tasks until the parent ends; the entry point of a worker process."""
    for name in ("SIGINT", "SIGHUP"):  # only the coordinator reacts to these, and then stops its workers
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    for name in ("SIGTERM", "SIGUSR2"):  # a worker inherits what the fork server does with them
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, inbox), daemon=True).start()
    permit(context.own_code)
    configure_torch(context)
    worker_cache = context.worker_cache()
    device = torch.device(device_name)
    while True:
        task: Task = inbox.get()

        def on_epoch(record: Any, task_id: str = task.task_id) -> bool:
            pipe.send(EpochMessage(task_id, record))
            return bool(inbox.get())

        pipe.send(run_task_safely(task, context, device, on_epoch, worker_cache, replaceable=True))


def _listen(pipe: Connection, inbox: queue.SimpleQueue[Any]) -> None:
    while True:
        try:
            inbox.put(pipe.recv())
        except (EOFError, OSError):
            os._exit(0)
