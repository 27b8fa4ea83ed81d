"""Executors run trials and scorings. Each one is a module of its own, named in `harness.config.executors`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from harness.config.executors import EXECUTORS
from harness.study.executors.base import Executor, MakeExecutor, WorkerContext


def make_executor(name: str, context: WorkerContext, devices: Sequence[str]) -> Executor:
    """Make the executor that a study file names; `devices` has one entry for each worker."""
    make: MakeExecutor = import_module(EXECUTORS[name].module).make
    return make(context, devices)
