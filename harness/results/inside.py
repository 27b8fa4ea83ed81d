"""Refuse a study's folder that holds links out of it: what such a link leads to would be read, sent or overwritten.

A study's folder may come from anyone, and the harness makes no links in it. Optuna makes one beside its journal while
it writes, as a lock. A killed process leaves it, and it leads out of the folder if that is moved then. Nothing is read
or written through it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from harness.errors import ConfigError
from harness.safe_text import escape_name

_OPTUNAS_LOCK = "optuna.log.lock"


def check_inside(root: Path, place: Path) -> None:
    """Look over every file and folder of `place` without opening any.

    Args:
        root: resolved folder that no link may leave.

    Raises:
        ConfigError: a link leads out of `root`, or something is neither a file nor a folder, such as a pipe.
    """
    for folder, folders, files in os.walk(place):
        for name in (*folders, *files):
            path = Path(folder) / name
            try:
                kind = path.lstat().st_mode
                if stat.S_ISLNK(kind) and name.startswith(_OPTUNAS_LOCK):
                    continue
                target = path.resolve() if stat.S_ISLNK(kind) else path
            except FileNotFoundError:  # a running study replaces its files
                continue
            except (OSError, RuntimeError):  # a link to itself
                raise ConfigError(_refused(root, path)) from None
            if stat.S_ISLNK(kind) and not target.is_relative_to(root):
                raise ConfigError(_refused(root, path))
            if target.exists() and not target.is_file() and not target.is_dir():
                raise ConfigError(f"{escape_name(str(root))} is not read: {escape_name(path.name)} is no file.")


def is_plain_file(path: Path) -> bool:
    """Whether the path names a file, and not a link, a pipe or a device; does not open it."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _refused(root: Path, path: Path) -> str:
    return (
        f"{escape_name(str(root))} is not read: {escape_name(path.name)} is a link that leads out of it. Put what it "
        "leads to in its place, or remove the link."
    )
