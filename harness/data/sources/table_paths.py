"""Find the files that a table names: relative to a folder, written on another machine, or without their suffix.

Every other way than the plain one is taken only if it leads to exactly one file, and is said.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

from harness.data.decoding.decode import SUFFIXES
from harness.data.sources.names import leftover, shortly
from harness.safe_text import escape_name

_TRIED = 20  # rows that decide how the paths of a table are read


class Finder:
    """Finds the files of one table.

    Args:
        root: resolved folder to which the paths are relative.
        name: of the table, for sentences.
    """

    def __init__(self, root: Path, name: str) -> None:
        self._root = str(root)
        self._name = name
        self._listed: dict[str, _Names] = {}
        self._strip = 0  # leading folders of each path that are not used
        self._below = ""  # folder in the root that is put before each path
        self._used: dict[str, tuple[str, str]] = {}  # what was done -> (the first value, the file)
        self.hint = ""  # for the message about files that do not exist

    def prepare(self, values: Sequence[str]) -> None:
        """Decide how the paths of a column are read, by its first values."""
        tried = list(values[:_TRIED])
        if not tried or any(self.find(value)[0] is not None for value in tried):
            return
        ways: list[tuple[int, str]] = [(strip, "") for strip in range(1, _shared_folders(values) + 1)]
        ways = [way for way in ways if self._all_found(way, tried)][:1]  # the longest path that exists
        ways = ways or [way for folder in self._folders() if self._all_found(way := (0, folder), tried)]
        if len(ways) > 1:
            self.hint = (
                f"; they exist in several folders ({shortly([below for _, below in ways])}), so set data.root to one"
            )
        elif ways:
            self._strip, self._below = ways[0]

    def find(self, value: str) -> tuple[str | None, str]:
        """Return the absolute path of a file, or None and why there is none."""
        file = self._place(value)
        if (reason := _missing(file)) is None:
            return file, ""
        if "\\" in value:
            slashes = self._place(value.replace("\\", "/"))
            if _missing(slashes) is None:
                return self._note("with / for each \\", value, slashes), ""
            file = slashes
        if reason != "does not exist":
            return None, reason
        folder, _, last = file.rpartition(os.sep)
        names = self._names(folder)
        same = names.by_case.get(last.casefold(), ())
        if len(same) == 1:
            return self._note("although upper and lower case differ", value, f"{folder}{os.sep}{same[0]}"), ""
        stem, suffix = os.path.splitext(last)  # noqa: PTH122
        if suffix.casefold() in SUFFIXES:
            others = names.by_stem.get(stem, ())
            return None, reason + (f", but {escape_name(others[0])} does" if len(others) == 1 else "")
        stems = names.by_stem.get(last, ())
        if len(stems) == 1:
            return self._note("with the suffix of the only file", value, f"{folder}{os.sep}{stems[0]}"), ""
        if stems:
            return None, f"may be {shortly([escape_name(name) for name in stems])}; write the suffix"
        padded = [name for other, same in names.by_stem.items() if _is_number(last, other) for name in same]
        return None, reason + (f", but {escape_name(padded[0])} does" if len(padded) == 1 else "")

    def reading(self) -> list[str]:
        """Return sentences on what was assumed."""
        sentences = [
            f"Paths in {self._name} were read {what}: {escape_name(value)} as {self.shown(file)}."
            for what, (value, file) in self._used.items()
        ]
        if self._strip:
            sentences.append(
                f"The first {self._strip} folders of the paths in {self._name} do not exist here and were left out."
            )
        if self._below:
            sentences.append(
                f"The paths in {self._name} were looked for in the folder {escape_name(self._below)}, because no file "
                "of these names is beside the table."
            )
        return sentences

    def shown(self, file: str) -> str:
        """Return an absolute path relative to the root, with / and escaped."""
        below = f"{self._root}{os.sep}"
        inner = file[len(below) :] if file.startswith(below) else os.path.relpath(file, self._root)
        return escape_name(inner.replace(os.sep, "/"))

    def place(self, value: str) -> str:
        """Return where a file is looked for, relative to the root."""
        return self.shown(self._place(value.replace("\\", "/")))

    def _note(self, what: str, value: str, file: str) -> str:
        self._used.setdefault(what, (value, file))
        return file

    def _place(self, value: str) -> str:
        if self._strip:
            value = "/".join(_parts(value)[self._strip :])
        if self._below:
            value = f"{self._below}/{value}"
        # not resolve(), which follows links; a Path for each of many thousand lines would take seconds
        return os.path.normpath(value if value.startswith("/") else f"{self._root}/{value}")

    def _all_found(self, way: tuple[int, str], values: Iterable[str]) -> bool:
        before, used = (self._strip, self._below), dict(self._used)
        self._strip, self._below = way
        found = all(self.find(value)[0] is not None for value in values)
        (self._strip, self._below), self._used = before, used
        return found

    def _folders(self) -> list[str]:
        try:
            with os.scandir(self._root) as entries:
                return sorted(e.name for e in entries if e.is_dir(follow_symlinks=False) and leftover(e.name) is None)
        except OSError:  # it may not be listed
            return []

    def _names(self, folder: str) -> _Names:
        if folder not in self._listed:
            self._listed[folder] = _Names(folder)
        return self._listed[folder]


class _Names:
    """The image files in a folder, by their names without regard to case, and by their names without the suffix."""

    def __init__(self, folder: str) -> None:
        self.by_case: dict[str, list[str]] = {}
        self.by_stem: dict[str, list[str]] = {}
        try:
            names = sorted(os.listdir(folder))  # noqa: PTH208 (no Path for each of many thousand files)
        except (OSError, ValueError):
            return
        for name in names:
            stem, suffix = os.path.splitext(name)  # noqa: PTH122
            if suffix.casefold() in SUFFIXES:
                self.by_case.setdefault(name.casefold(), []).append(name)
                self.by_stem.setdefault(stem, []).append(name)


def _is_number(written: str, stem: str) -> bool:
    """Return whether a file is named by the number that a table has, whose zeros in front a spreadsheet removes."""
    return written.isascii() and written.isdigit() and stem.isascii() and stem.isdigit() and int(stem) == int(written)


def root_of(given: Path, root: str | None) -> Path:
    """Return the folder to which the paths of a table are relative: `data.root`, or the table's own."""
    own = given.parent.resolve()
    return own if root is None else Path(os.path.normpath(own / PurePath(os.path.expanduser(root))))  # noqa: PTH111


def _shared_folders(values: Sequence[str]) -> int:
    """Return how many leading folders all paths have in common."""
    shared: list[str] | None = None
    for value in values:
        folders = _parts(value)[:-1]
        if shared is None:
            shared = folders
        while shared and folders[: len(shared)] != shared:
            shared.pop()
        if not shared:
            return 0
    return len(shared or [])


def _parts(value: str) -> list[str]:
    return [part for part in value.replace("\\", "/").split("/") if part and part != "."]


def _missing(file: str) -> str | None:
    """Return why this file cannot be an image; None if it can."""
    try:
        return None if stat.S_ISREG(os.stat(file).st_mode) else "is not a file"  # noqa: PTH116 - see `_place`
    except (FileNotFoundError, NotADirectoryError):
        return "does not exist"
    except (OSError, ValueError) as error:  # its name is too long, or a folder cannot be read
        return f"cannot be opened ({getattr(error, 'strerror', None) or error})"
