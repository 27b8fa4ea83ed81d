"""Masks and annotations that lie beside images: they are no images of a class, and are left aside.

They are recognised by their names together with what they belong to: a folder `masks` beside a folder `images`, or a
file `x_mask.png` beside `x.png`.
"""

from __future__ import annotations

import os
import re

from harness.data.sources.names import IMAGE_WORDS, MASK_WORDS, part_of, words
from harness.data.sources.tree import Folder, count

MASK_FOLDER = "folder of masks or annotations"
MASK_FILE = "mask beside its image"
_SUFFIX_OF_MASK = re.compile(
    r"(?i)(?<=[\w)])[ _.-](?:mask|masks|seg|segmentation|label|labels|gt|annotation)[ _-]?\d*$"
)


def set_masks_aside(top: Folder, levels: int) -> None:
    """Move masks from the images and folders of a tree to what is left aside.

    Args:
        levels: number of levels that a given layout names; folders of these levels are left as they are.
    """
    for folder in list(top.walk()):
        depth = folder.path.count("/") + 1 if folder.path else 0
        if depth >= levels:
            for inner in mask_folders(folder):
                folder.folders.remove(inner)
                folder.others.append((inner.name, MASK_FOLDER, max(inner.files(), 1)))
        _set_files_aside(folder)
    count(top)


def mask_folders(folder: Folder) -> list[Folder]:
    """Return the folders inside that hold masks of images in this folder or in a folder beside them."""
    named = [(inner, words(inner.name)) for inner in folder.folders]
    found = []
    for inner, own in named:
        rest = tuple(word for word in own if word not in MASK_WORDS)
        if rest == own:
            continue
        if not rest and folder.images and _belongs(inner, folder):
            found.append(inner)
            continue
        for other, theirs in named:
            plain = tuple(word for word in theirs if word not in IMAGE_WORDS)
            said = plain != theirs or part_of(other.name) is not None  # an images folder, or the images of a part
            if other is not inner and not MASK_WORDS & set(theirs) and other.total and plain == rest and said:
                found.append(inner)
                break
    return found


def unclear_masks(folder: Folder) -> list[tuple[str, str]]:
    """Return pairs (cat, cat_masks) of folders inside that may be a class and its masks, or two classes."""
    by_words = {words(inner.name): inner for inner in folder.folders}
    pairs = []
    for own, inner in by_words.items():
        rest = tuple(word for word in own if word not in MASK_WORDS)
        other = by_words.get(rest)
        if rest and rest != own and other is not None and other.total and _belongs(inner, other):
            pairs.append((other.name, inner.name))
    return pairs


def _belongs(masks: Folder, images: Folder) -> bool:
    """Return whether the files in `masks` have the names of images in the other folder."""
    stems = {_stem(name) for one in images.walk() if not _inside(one, masks) for name in one.images}
    marked = [_SUFFIX_OF_MASK.sub("", _stem(name)) for one in masks.walk() for name in one.images]
    return not marked or sum(stem in stems for stem in marked) >= 0.9 * len(marked)


def _inside(folder: Folder, other: Folder) -> bool:
    return folder.path == other.path or folder.path.startswith(f"{other.path}/")


def _set_files_aside(folder: Folder) -> None:
    stems: set[str] | None = None
    kept = []
    for name in folder.images:
        stem = _stem(name)
        marked = _SUFFIX_OF_MASK.search(stem)
        if marked is not None:
            stems = {_stem(other) for other in folder.images} if stems is None else stems
            if stem[: marked.start()] in stems:
                folder.others.append((name, f"{MASK_FILE} (_mask, _seg, _label)", 1))
                continue
        kept.append(name)
    folder.images = kept


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]  # noqa: PTH122 (the name may be no valid path)
