"""The table of executors: the names that a study file may give, and the module that each name stands for.

To add an executor, write its module and add a line here. The modules are only named, not imported: they need torch, and
a study file is checked without it. Each of them offers `make(context, devices)`, see
`harness.study.executors.base.MakeExecutor`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ExecutorEntry:
    """One line of the table."""

    module: str
    doc: str  # what it does, for the documentation of the study file
    forks: bool = False  # it starts workers by `harness.study.executors.forkserver`, whose server can be started early


EXECUTORS: dict[str, ExecutorEntry] = {
    "processes": ExecutorEntry(
        "harness.study.executors.processes", "trains in one lasting worker process for each device", forks=True
    ),
    "inline": ExecutorEntry("harness.study.executors.inline", "trains in the coordinator, for debugging"),
}


def check_executor(name: str) -> str:
    """Return the name of an executor as it is.

    Raises:
        ValueError: there is no executor of this name.
    """
    if name not in EXECUTORS:
        raise ValueError(f"must be {' or '.join(repr(known) for known in EXECUTORS)}, but got {name!r}")
    return name
