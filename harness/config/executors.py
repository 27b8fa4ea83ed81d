"""The table of executors: the names that a study file may use, and the module of each.

To add an executor, write its module and add a line here. The modules are only named here and not imported, because they
need torch and a study file is checked without it. Each module has a function `make(context, devices)`, see
`harness.study.executors.base.MakeExecutor`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ExecutorEntry:
    """One line of the table."""

    module: str
    doc: str  # what it does, for the documentation of the study file
    forks: bool = False  # whether it starts workers by `harness.study.executors.forkserver`, which can be started early


EXECUTORS: dict[str, ExecutorEntry] = {
    "processes": ExecutorEntry(
        "harness.study.executors.processes", "trains in one lasting worker process for each device", forks=True
    ),
    "inline": ExecutorEntry("harness.study.executors.inline", "trains in the coordinator, for debugging"),
}


def check_executor(name: str) -> str:
    """Return the name of an executor unchanged, if there is one with this name.

    Raises:
        ValueError: there is no executor with this name.
    """
    if name not in EXECUTORS:
        raise ValueError(f"must be {' or '.join(repr(known) for known in EXECUTORS)}, but got {name!r}")
    return name
