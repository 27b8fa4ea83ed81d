"""The source of images in a folder, whose levels are classes, parts, groups or what `data.layout` says.

Files and folders that are not read are counted by reason and class. A link to a folder is not followed (see
`harness.data.sources.tree`); one that stands for a class or a part is refused, because its images would be missing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from harness.data.sources import layout as layouts
from harness.data.sources.layout import Layout
from harness.data.sources.listing import Aside, Listing, Sample, by_bytes
from harness.data.sources.masks import MASK_FILE, MASK_FOLDER, set_masks_aside
from harness.data.sources.names import part_of, shortly
from harness.data.sources.readings import ANY, CLASS, GROUP, SPLIT
from harness.data.sources.tables_beside import SHEET_SUFFIXES, TABLE_SUFFIXES
from harness.data.sources.tree import Folder, read_tree
from harness.errors import DataError
from harness.safe_text import escape_name, listed

OUTSIDE = "image outside a class folder"
_BESIDE = "folder that the layout leaves out"
_NO_PART = "folder whose name says no part of the split"
_DEEPEST = 1  # if no layout is given: levels below the data folder in which a linked folder may be a class
_TEXTS = tuple(f"({suffix})" for suffix in (".txt", ".csv", ".tsv", ".json", ".xml", ".md", ".yaml", ".yml", ".log"))


def list_folder(given: Path, layout: str | None = None, *, grouped: bool = False) -> Listing:
    """List the images of a folder.

    Args:
        given: the folder.
        layout: what its levels are, as `data.layout`; None recognises them.
        grouped: the study has a rule for groups, so that no level is recognised as the group.

    Raises:
        DataError: the folder is missing, has no images in class folders, or has several readings; a folder of a class
            or part is a link; or names differ only in their encoding.
    """
    if not given.is_dir():
        raise DataError(_no_folder(given))
    root = given.resolve()
    top = read_tree(root)
    shown = escape_name(str(given))
    _refuse_links(top, layout)
    levels = tuple(layout.split("/")) if layout is not None else ()
    set_masks_aside(top, len(levels))
    if not top.total:
        raise DataError(_nothing(top, shown))
    read = Layout(levels) if layout is not None else layouts.recognise(top, shown, grouped=grouped)
    taken = _Taken(read.levels)
    taken.descend(top, 0, "", "", "")
    if not taken.found:
        raise DataError(
            f"the data folder {shown} has no images where data.layout: {'/'.join(read.levels)} looks for them"
            f"{_why_none(top, taken)}; change data.layout, or leave it out so that the levels are recognised."
        )
    clashes = taken.clashes + [
        f"class folder {key.lstrip('/')}" for key, n in taken.class_folders.items() if len(n) > 1
    ]
    if clashes:
        raise DataError(
            "names must not differ only in how their characters are encoded; rename these:\n" + listed(sorted(clashes))
        )
    order = sorted(taken.found, key=by_bytes)
    files = [taken.found[path][0] for path in order]
    prefix = f"{root}{os.sep}"
    aside = taken.aside.entries()
    parted = any(sample.fixed_split for _, sample in taken.found.values())
    return Listing(
        name=escape_name(root.name) or "images",
        source=f"folder {escape_name(root.name)}",
        samples=tuple(taken.found[path][1] for path in order),
        fetch=lambda index: Path(prefix + files[index]),
        left_aside=aside,
        split_from="folders" if parted else "drawn",
        warnings=(*read.warnings, *_warnings(taken)),
        classes=tuple(sorted({key.rpartition("/")[2] for key in taken.class_folders}, key=by_bytes)),
        group_rule="folder" if GROUP in read.levels else None,
        notes=read.reading,
        reading=read.reading,
        root=root,
    )


@dataclass
class _Taken:
    """What is read with a layout, and what is left aside."""

    levels: tuple[str, ...]
    found: dict[str, tuple[str, Sample]] = field(default_factory=dict)  # shown path -> (path below the root, sample)
    clashes: list[str] = field(default_factory=list)
    class_folders: dict[str, set[str]] = field(default_factory=dict)  # folder/class as shown -> names of that folder
    aside: Aside = field(default_factory=Aside)
    left: dict[str, int] = field(default_factory=dict)  # folders beside those that are read -> images in them

    def descend(self, folder: Folder, depth: int, label: str, part: str, group: str) -> None:
        """Take the images below a folder, whose own level is `depth` levels below the data folder."""
        if depth == len(self.levels):
            for one in folder.walk():
                self._take(one, label, part, group)
            return
        self._count_others(folder, label)
        for name in folder.images:
            beside = "image above the folders that the layout names" if label else OUTSIDE
            self.aside.add(beside, folder.within(name), label)
        level = self.levels[depth]
        for inner in folder.folders:
            shown = escape_name(inner.name)
            if level == SPLIT:
                named = part_of(inner.name)
                if named is None:
                    self._leave(inner, _NO_PART, label)
                else:
                    self.descend(inner, depth + 1, label, named, group)
            elif level == CLASS:
                self.class_folders.setdefault(f"{escape_name(folder.path)}/{shown}", set()).add(inner.name)
                self.descend(inner, depth + 1, shown, part, group)
            elif level == GROUP:
                self.descend(inner, depth + 1, label, part, shown)
            elif level in (ANY, inner.name):
                self.descend(inner, depth + 1, label, part, group)
            else:
                self._leave(inner, _BESIDE, label)

    def _take(self, folder: Folder, label: str, part: str, group: str) -> None:
        self._count_others(folder, label)
        before, before_shown = (f"{folder.path}/", f"{escape_name(folder.path)}/")
        for name in folder.images:
            shown = before_shown + escape_name(name)
            if shown in self.found:
                self.clashes.append(shown)
            self.found[shown] = (before + name, Sample(shown, label, group, part))

    def _count_others(self, folder: Folder, label: str) -> None:
        for name, reason, number in folder.others:
            self.aside.add(reason, folder.within(name), label, number)
        for name, where in folder.links:
            self.aside.add(where, folder.within(name), label)

    def _leave(self, folder: Folder, reason: str, label: str) -> None:
        self.aside.add(reason, escape_name(folder.path), label)
        if folder.total and not label:
            self.left[escape_name(folder.path)] = folder.total


def _no_folder(given: Path) -> str:
    shown = escape_name(str(given))
    must = "it must hold one folder of images for each class, or train/, val/ and test/ with those inside."
    if not given.exists():
        return f"the data folder {shown} does not exist; {must}"
    if given.suffix.lower() in SHEET_SUFFIXES:
        return f"{shown} is a spreadsheet; save it as CSV, and give that file."
    if given.suffix.lower() in TABLE_SUFFIXES:
        return f"{shown} is a table, not a folder; give it as data.source: {{csv: PATH}}, or as DATA=PATH."
    return f"the data folder {shown} is not a folder; {must}"


def _refuse_links(top: Folder, layout: str | None) -> None:
    """Refuse links to folders at the levels down to the classes, whose images would be missing in silence."""
    last = layout.split("/").index(CLASS) if layout is not None else _DEEPEST
    found = []
    waiting = [(top, 0)]
    while waiting:
        folder, depth = waiting.pop()
        if layout is None and depth and folder.images:
            continue  # a class, or a part without classes: no folder in it is a class
        found += [f"{folder.within(name)} ({where})" for name, where in folder.links]
        waiting += [(inner, depth + 1) for inner in folder.folders] if depth < last else []
    if found:
        raise DataError(
            "links to folders are not followed, so these would be missing; put the folders themselves in their place, "
            "or list the images in a table (links to single files inside the data folder are followed):\n"
            + listed(sorted(found))
        )


def _nothing(top: Folder, shown: str) -> str:
    aside = Aside()
    for folder in top.walk():
        for name, reason, number in folder.others:
            aside.add(reason, folder.within(name), count=number)
    left = "; ".join(f"{one.count} x {one.reason}" for one in aside.entries())
    return (
        f"the data folder {shown} holds no images in class folders"
        + (f" (not read: {left})" if left else "")
        + "; it must hold one folder of images for each class."
    )


def _why_none(top: Folder, taken: _Taken) -> str:
    tops = sorted(escape_name(folder.name) for folder in top.folders)
    held = f": at the top there is {shortly(tops)}" if tops else ""
    left = "; ".join(f"{one.count} x {one.reason}, as {one.example}" for one in taken.aside.entries())
    return held + (f" (not read: {left})" if left else "")


def _warnings(taken: _Taken) -> list[str]:
    """Return sentences about what is left aside and might be missed."""
    warnings, masks = [], Aside()
    images: dict[str, int] = {}
    for _, sample in taken.found.values():
        images[sample.label] = images.get(sample.label, 0) + 1
    for one in taken.aside.entries():
        if one.reason == MASK_FOLDER or one.reason.startswith(MASK_FILE):
            masks.add(one.reason, one.example, count=one.count)
        elif one.label and _is_missed(one.reason, one.count, images.get(one.label, 0)):
            warnings.append(
                f"Class {one.label}: {one.count} files are left aside ({one.reason}), such as {one.example}; "
                f"{images.get(one.label, 0)} images are read."
            )
        elif one.reason == OUTSIDE:
            warnings.append(f"{one.count} images lie outside the folders of classes and are left aside: {one.example}.")
        elif (
            one.reason.startswith("folder of ") and not one.label and one.example.rpartition("/")[2][:1] not in ".@#$_"
        ):
            warnings.append(f"The folder {one.example} is left aside by its name ({one.reason}).")
    for one in masks.entries():
        what = "folders of masks or annotations beside images" if one.reason == MASK_FOLDER else "masks beside images"
        warnings.append(
            f"Left aside as {what}: {one.count} files, such as {one.example}. They are masks by their names."
        )
    warnings += [f"The folder {folder} with {count} images is left aside." for folder, count in taken.left.items()]
    return warnings


def _is_missed(reason: str, count: int, images: int) -> bool:
    """Return whether files of a class are left aside for a reason that a user may not know of."""
    if reason.startswith("not an image by its suffix"):
        return not reason.endswith(_TEXTS) and count >= max(1, 0.01 * images)
    return reason.startswith(("link", "image above", "not a regular"))
