"""The folders and files below a data folder, read once without following links to folders.

The rule for links: a link to a folder is never followed, because it may lead out of the data, in a circle, or to images
that are read under another name. A link to a file is followed if the file lies in the data folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness.data.decoding.decode import SUFFIXES
from harness.data.sources.names import leftover
from harness.errors import DataError
from harness.safe_text import escape_name

_SYSTEM_FILES = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"))
_LONGEST_SUFFIX = 10  # characters of a suffix that is named


@dataclass(eq=False)
class Folder:
    """One folder. Names are as the file system gives them; `path` is relative to the data folder, with /."""

    name: str
    path: str
    images: list[str] = field(default_factory=list)  # files that are images by their suffix, sorted by bytes
    folders: list[Folder] = field(default_factory=list)
    others: list[tuple[str, str, int]] = field(default_factory=list)  # (name, reason why it is left aside, count)
    links: list[tuple[str, str]] = field(default_factory=list)  # links to folders: (name, where they lead)
    total: int = 0  # images in this folder and in those inside it

    def within(self, name: str) -> str:
        """Return the path of an entry of this folder, relative to the data folder and escaped."""
        return escape_name(f"{self.path}/{name}" if self.path else name)

    def filled(self) -> list[Folder]:
        """Return the folders inside that hold images at any depth."""
        return [folder for folder in self.folders if folder.total]

    def files(self) -> int:
        """Return how many files lie in this folder and below, images and others."""
        return sum(len(one.images) + sum(count for _, _, count in one.others) for one in self.walk())

    def walk(self) -> Iterator[Folder]:
        """Return this folder and all below, each before those inside it."""
        waiting = [self]
        while waiting:
            folder = waiting.pop()
            yield folder
            waiting += reversed(folder.folders)


def read_tree(root: Path) -> Folder:
    """Read all folders below a resolved folder.

    Raises:
        DataError: a folder cannot be opened.
    """
    top = Folder(root.name, "")
    order, waiting = [top], [(top, str(root))]
    while waiting:
        folder, place = waiting.pop()
        try:
            with os.scandir(place) as found:
                entries = sorted(found, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            shown = escape_name(folder.path or str(root))
            raise DataError(f"the folder {shown} cannot be opened ({error.strerror}); allow reading it.") from None
        for entry in entries:
            if entry.is_dir():
                inner = _inner(folder, entry, root)
                if inner is not None:
                    folder.folders.append(inner)
                    waiting.append((inner, entry.path))
                    order.append(inner)
            elif (reason := _unwanted(entry, root)) is not None:
                folder.others.append((entry.name, reason, 1))
            else:
                folder.images.append(entry.name)
    count(top, order)
    return top


def count(top: Folder, order: list[Folder] | None = None) -> None:
    """Count the images of each folder anew."""
    for folder in reversed(order if order is not None else list(top.walk())):  # those inside come first
        folder.total = len(folder.images) + sum(inner.total for inner in folder.folders)


def _inner(folder: Folder, entry: os.DirEntry[str], root: Path) -> Folder | None:
    """Return the folder inside; None, with the reason noted, if it is not read."""
    kind = leftover(entry.name)
    if kind is not None:
        folder.others.append((entry.name, kind, 1))
        return None
    if entry.is_symlink():
        target = Path(entry.path).resolve()
        if target == root or Path(entry.path).parent.is_relative_to(target):
            where = "link cycle"
        elif target.is_relative_to(root):
            where = "link to a folder that is read under its own name"
        else:
            where = "link out of the data folder"
        folder.links.append((entry.name, where))
        return None
    return Folder(entry.name, f"{folder.path}/{entry.name}" if folder.path else entry.name)


def _unwanted(entry: os.DirEntry[str], root: Path) -> str | None:
    """Return why this file is not read as an image, or None if it is."""
    if entry.name.startswith(".") or entry.name.casefold() in _SYSTEM_FILES:
        return "hidden or system file"
    suffix = os.path.splitext(entry.name)[1].casefold()  # noqa: PTH122 (the name may be no valid path)
    if suffix not in SUFFIXES:
        return f"not an image by its suffix ({_shown_suffix(suffix)})"
    if entry.is_symlink():
        try:
            target = Path(entry.path).resolve(strict=True)
        except OSError:
            return "link that leads nowhere"
        if not target.is_relative_to(root):
            return "link out of the data folder"
        if not target.is_file():
            return "not a regular file"
    elif not entry.is_file():
        return "not a regular file"
    return None


def _shown_suffix(suffix: str) -> str:
    if not suffix:
        return "none"
    return escape_name(suffix) if len(suffix) <= _LONGEST_SUFFIX and not suffix[1:].isdigit() else "another"
