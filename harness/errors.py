"""Every error the harness raises on purpose, and the exit code each one ends the command with.

    HarnessError            1   ran, but nothing completed or an internal rule broke
    ├── ConfigError         2   wrong use, or a fault in a study file
    ├── DataError           3   images, labels, groups, splits
    ├── ResourceError       4   weights, memory, a device that is not there
    │   └── DiskFullError   4   a file could not be written; ends the study, not the trial alone
    ├── StudyHeldError     75   another process works on this study
    ├── Interrupted       128+n a signal asked us to stop
    ├── ContractError       1   a trial broke the training contract (fails that trial alone)
    └── DivergedError       1   a trial's numbers are not finite any more (ends that trial alone)

A message gives the rule, what came, and the way out.
"""

from __future__ import annotations

from collections.abc import Sequence


class HarnessError(Exception):
    """Base of all errors that are meant for the user: shown without a traceback."""

    exit_code = 1


class ConfigError(HarnessError):
    """A study file, flag or argument is wrong; `faults` lists every fault found, one line each."""

    exit_code = 2

    def __init__(self, message: str, faults: Sequence[str] = ()) -> None:
        super().__init__("\n".join([message, *(f"  - {fault}" for fault in faults)]))
        self.faults = tuple(faults) or (message,)


class DataError(HarnessError):
    """The images, labels, groups or splits cannot be used as they are."""

    exit_code = 3


class ResourceError(HarnessError):
    """Something the study needs is missing here: disk space, a weights file, a device."""

    exit_code = 4


class DiskFullError(ResourceError):
    """A file could not be written; names it, and the bytes that are free. More tries would end the same way."""


class StudyHeldError(HarnessError):
    """Another process holds this study's lock."""

    exit_code = 75


class Interrupted(HarnessError):
    """A signal asked the study to stop; what was finished is safe.

    Args:
        signum: the signal's number; the exit code is 128 + signum, as shells expect.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum
        self.exit_code = 128 + signum


class ContractError(HarnessError):
    """A tensor that had to change stayed, or one that had to stay changed; names the tensor."""


class DivergedError(HarnessError):
    """A loss, a gradient or an output is not finite any more; says which and when."""
