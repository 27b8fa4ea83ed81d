"""Where trials run: `inline` in the coordinator's own process, `processes` in one lasting worker for each device."""

from __future__ import annotations

from harness.study.executors.base import Executor, WorkerContext
from harness.study.executors.inline import InlineExecutor
from harness.study.executors.processes import ProcessExecutor


def make_executor(kind: str, context: WorkerContext, devices: list[str]) -> Executor:
    """`inline` (one trial at a time, for debugging) or `processes` (one worker for each entry of `devices`)."""
    return InlineExecutor(context, devices[0]) if kind == "inline" else ProcessExecutor(context, devices)
