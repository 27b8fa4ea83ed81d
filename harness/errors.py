"""All errors that the harness raises deliberately, and the exit code of the command for each.

    HarnessError            1   no trial completed, or an internal rule was broken
    ├── ConfigError         2   wrong use, or a fault in a study file
    ├── DataError           3   a fault in images, labels, groups or splits
    ├── ResourceError       4   missing weights, memory or device
    │   └── DiskFullError   4   a file could not be written; ends the whole study
    ├── StudyHeldError     75   another process works on this study
    ├── Interrupted       128+n the signal n asked the study to stop
    ├── ContractError       1   a trial broke the training contract; fails only that trial
    └── DivergedError       1   a trial's numbers are no longer finite; ends only that trial

A message states the rule, the value that was found, and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence


class HarnessError(Exception):
    """Base class of all errors that are meant for the user. They are shown without a traceback."""

    exit_code = 1


class ConfigError(HarnessError):
    """A study file, flag or argument is wrong. `faults` lists all faults that were found, one line each."""

    exit_code = 2

    def __init__(self, message: str, faults: Sequence[str] = ()) -> None:
        super().__init__("\n".join([message, *(f"  - {fault}" for fault in faults)]))
        self.faults = tuple(faults) or (message,)


class DataError(HarnessError):
    """The images, labels, groups or splits cannot be used as they are."""

    exit_code = 3


class ResourceError(HarnessError):
    """Something that the study needs is missing on this machine: disk space, a weights file or a device."""

    exit_code = 4


class DiskFullError(ResourceError):
    """A file could not be written. The message names the file and the free bytes. Trying again would not help."""


class StudyHeldError(HarnessError):
    """Another process holds this study's lock."""

    exit_code = 75


class Interrupted(HarnessError):
    """A signal asked the study to stop. Everything that was finished is saved.

    Args:
        signum: the signal's number. The exit code is 128 + signum, as shells expect.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum
        self.exit_code = 128 + signum


class ContractError(HarnessError):
    """A frozen tensor changed, a training tensor did not train, or another training rule was broken.

    The message names the tensor.
    """


class DivergedError(HarnessError):
    """A loss, a gradient or an output is no longer finite. The message says which one, and when."""
