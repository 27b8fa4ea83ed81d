"""How worker processes come to be; needs no torch, so that a command can start it before it imports anything heavy.

Where the system allows, workers are forked from a server that has imported torch and the training code once: the
first worker is at hand as soon as those imports are done, beside the command's own, and every other one (a second
device's, one that replaces a dead one) in milliseconds. On macOS forking after such imports is not safe; there every
worker is spawned and imports for itself. Nothing else is forked: not the coordinator with its threads, nor anything
that holds a GPU.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing import forkserver
from multiprocessing.context import BaseContext

_FORKS = sys.platform.startswith("linux")


def context() -> BaseContext:
    """What makes workers."""
    _settle()
    return multiprocessing.get_context("forkserver" if _FORKS else "spawn")


def warm_up() -> None:
    """Let the server start importing now, in a process of its own; returns at once."""
    _settle()
    if _FORKS:
        forkserver.ensure_running()


def _settle() -> None:
    # Threads that wait by spinning stall one another as soon as anything else wants a core: on two busy
    # cores ResNet-18 trained 14 to 24 images a second spinning and 31 to 42 sleeping.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if _FORKS:
        forkserver.set_forkserver_preload(["harness.study.executors.worker"])
