"""The source of images in a folder with one folder for each class, or for each part and class.

Files and folders that are not read are counted by reason.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from harness.data.decoding.decode import SUFFIXES
from harness.data.sources.listing import Aside, Listing, Sample, by_bytes
from harness.errors import DataError
from harness.safe_text import escape_name, listed

PART_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


def list_folder(given: Path) -> Listing:
    """List the images of a folder.

    Args:
        given: folder with one folder for each class, or with train/, val/ and test/ that have those inside.

    Raises:
        DataError: the folder is missing, has no images in class folders, mixes parts and classes, or has names that
            differ only in their encoding.
    """
    if not given.is_dir():
        what = "is not a folder" if given.exists() else "does not exist"
        raise DataError(
            f"the data folder {escape_name(str(given))} {what}; it must hold one folder of images for each class, "
            "or train/, val/ and test/ with those inside."
        )
    root = given.resolve()
    aside = Aside()
    tops = [entry for entry in _entries(root) if usable_folder(entry, root, [root], aside)]
    for entry in _entries(root):
        if not entry.is_dir():
            reason = _unwanted_file(entry, root) or "image outside a class folder"
            aside.add(reason, _shown(entry, root))
    parts = {entry.name: PART_NAMES[entry.name.casefold()] for entry in tops if is_part(entry.name)}
    parted = {entry.name for entry in tops if entry.name in parts and _holds_folders(Path(entry.path))}
    if parted and len(parted) != len(tops):
        others = sorted({escape_name(entry.name) for entry in tops} - parted)
        raise DataError(
            f"the data folder holds parts ({', '.join(sorted(parted))}) and other folders beside them "
            f"({', '.join(others[:5])}): keep either parts or classes at the top."
        )
    found: dict[str, tuple[Path, Sample]] = {}
    clashes: list[str] = []
    class_folders: dict[str, set[str]] = {}
    for top in tops:
        folder = Path(top.path)
        part = parts[top.name] if parted else ""
        if parted:
            homes = [Path(e.path) for e in _entries(folder) if usable_folder(e, root, [root, folder.resolve()], aside)]
            for entry in _entries(folder):
                if not entry.is_dir():
                    aside.add(_unwanted_file(entry, root) or "image outside a class folder", _shown(entry, root))
        else:
            homes = [folder]
        for home in homes:
            label = escape_name(home.name)
            class_folders.setdefault(f"{escape_name(home.parent.name) if parted else ''}/{label}", set()).add(home.name)
            for file in _files(home, label, root, [root, home.resolve()], aside):
                shown = escape_name(file.relative_to(given.resolve()).as_posix())
                if shown in found:
                    clashes.append(shown)
                found[shown] = (file, Sample(shown, label, fixed_split=part))
    clashes += [f"class folder {key.lstrip('/')}" for key, names in class_folders.items() if len(names) > 1]
    if clashes:
        raise DataError(
            "names must not differ only in how their characters are encoded; rename these:\n" + listed(sorted(clashes))
        )
    if not found:
        left = "; ".join(f"{one.count} x {one.reason}" for one in aside.entries())
        raise DataError(
            f"the data folder {escape_name(str(given))} holds no images in class folders"
            + (f" (not read: {left})" if left else "")
            + "; it must hold one folder of images for each class."
        )
    order = sorted(found, key=by_bytes)
    files = [found[path][0] for path in order]
    classes = sorted({key.partition("/")[2] for key in class_folders}, key=by_bytes)
    return Listing(
        name=escape_name(root.name) or "images",
        source=f"folder {escape_name(root.name)}",
        samples=tuple(found[path][1] for path in order),
        fetch=lambda index: files[index],
        left_aside=aside.entries(),
        split_from="folders" if parted else "drawn",
        classes=tuple(classes),
        root=root,
    )


def _shown(entry: os.DirEntry[str], root: Path) -> str:
    return escape_name(os.path.relpath(entry.path, root).replace(os.sep, "/"))


def is_part(name: str) -> bool:
    """Return whether this is a name of a part of the split, such as `train` or `val`."""
    return name.casefold() in PART_NAMES


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        return sorted(found, key=lambda entry: os.fsencode(entry.name))


def _holds_folders(folder: Path) -> bool:
    return any(entry.is_dir() and not _hidden(entry.name) for entry in _entries(folder))


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def usable_folder(entry: os.DirEntry[str], root: Path, above: list[Path], aside: Aside) -> bool:
    """Return whether to read this folder; count it in `aside` if not. Links to folders are never followed.

    Args:
        root: the data folder.
        above: the folders that contain the entry, to recognise a link to one of them.
    """
    if not entry.is_dir():
        return False
    if _hidden(entry.name):
        aside.add("hidden folder", _shown(entry, root))
        return False
    if entry.is_symlink():
        target = Path(entry.path).resolve()
        if target in above:
            aside.add("link cycle", _shown(entry, root))
        elif target.is_relative_to(root):
            aside.add("link to a folder that is read under its own name", _shown(entry, root))
        else:
            aside.add("link out of the data folder", _shown(entry, root))
        return False
    return True


def _unwanted_file(entry: os.DirEntry[str], root: Path) -> str | None:
    """Return why this entry is not read as an image, or None if it is."""
    if entry.name.startswith(".") or entry.name.casefold() in ("thumbs.db", "desktop.ini"):
        return "hidden or system file"
    if os.path.splitext(entry.name)[1].casefold() not in SUFFIXES:  # noqa: PTH122 (the name may be no valid path)
        return "not an image by its suffix"
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


def _files(folder: Path, label: str, root: Path, above: list[Path], aside: Aside) -> Iterator[Path]:
    """Return the image files in a class folder and in the folders inside it."""
    for entry in _entries(folder):
        if entry.is_dir():
            if usable_folder(entry, root, above, aside):
                path = Path(entry.path)
                yield from _files(path, label, root, [*above, path], aside)
        elif (reason := _unwanted_file(entry, root)) is not None:
            aside.add(reason, _shown(entry, root), label)
        else:
            yield Path(entry.path)
