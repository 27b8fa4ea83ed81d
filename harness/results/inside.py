"""Refuse a study's folder that holds links out of it: what such a link leads to would be read, sent or overwritten.

A study's folder may come from anyone. The harness itself makes no links in it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from harness.errors import ConfigError
from harness.safe_text import escape_name


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
                target = path.resolve() if stat.S_ISLNK(kind) else path
            except FileNotFoundError:  # a running study replaces its files
                continue
            except (OSError, RuntimeError):  # a link to itself
                raise ConfigError(_refused(root, path)) from None
            if stat.S_ISLNK(kind) and not target.is_relative_to(root):
                raise ConfigError(_refused(root, path))
            if target.exists() and not target.is_file() and not target.is_dir():
                raise ConfigError(f"{escape_name(str(root))} is not read: {escape_name(path.name)} is no file.")


def _refused(root: Path, path: Path) -> str:
    return (
        f"{escape_name(str(root))} is not read: {escape_name(path.name)} is a link that leads out of it. Put what it "
        "leads to in its place, or remove the link."
    )
