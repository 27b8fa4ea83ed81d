"""Stored studies that lie outside HARNESS_HOME, as `harness pack` writes them: found by their path, and only read.

Such a folder may come from anyone, so it is looked over before anything of it is used: no link leaves it, no file would
unpack to an absurd size, and what it says of the study is what a study says.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.config.study import StudyConfig
from harness.errors import ConfigError, HarnessError
from harness.results.compressed import check_arrays
from harness.results.paths import StudyFolder, in_home, stored_in
from harness.results.stored_study import read_object
from harness.safe_text import escape_name


def is_path(name: str) -> bool:
    """Whether this names a study by its path: it has a separator, or is no study here but a folder that holds one."""
    if any(mark in name for mark in ("/", os.sep, os.altsep or "/")):
        return True
    return bool(name) and not in_home(name) and stored_in(Path(name)) is not None


def open_stored(path: str) -> StudyFolder:
    """The stored study at this path, looked over; one that lies in HARNESS_HOME is the study of its name.

    Raises:
        ConfigError: no stored study is there, or it cannot be used; says why in one line.
    """
    folder = StudyFolder.at(Path(path))
    if folder.place is not None:
        try:
            _check(folder)
        except (HarnessError, OSError) as error:
            raise ConfigError(f"the stored study in {escape_name(path)} cannot be used: {error}") from None
    return folder


@contextmanager
def reading(folder: StudyFolder) -> Iterator[None]:
    """Say in one line that a study's files say what no study says; `--debug` shows where that was met.

    Raises:
        HarnessError: anything but an error of ours was raised.
    """
    try:
        yield
    except HarnessError:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        ways = f"; `harness doctor {folder.name}` says which of its files are damaged" if folder.place is None else ""
        raise HarnessError(
            f"the stored study {folder.name} holds what no study holds ({escape_name(what)}){ways}."
        ) from error


def _check(folder: StudyFolder) -> None:
    for path in (folder.study_json, folder.data_card, folder.importance):
        if path.exists():
            read_object(path)
    try:
        StudyConfig.model_validate(read_object(folder.study_json)["study"])
    except (KeyError, TypeError, ValueError):
        raise HarnessError(f"{folder.study_json.name} describes no study of this version") from None
    for path in (*sorted(folder.predictions.glob("*.npz")), folder.thumbnails, folder.mistakes):
        if path.exists():
            check_arrays(path)
