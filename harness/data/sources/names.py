"""What names of folders mean: parts of a split, groups, folds, masks, and folders that other programs leave behind."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

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
_PART_WORDS = PART_NAMES | {
    "trn": "train",
    "tr": "train",
    "trainval": "train",
    "vali": "validation",
    "devel": "validation",
    "development": "validation",
    "eval": "validation",
    "evaluation": "validation",
    "tst": "test",
    "ts": "test",
    "holdout": "test",
}
_GLUED = re.compile(r"(?P<part>[a-z]{3,}?)(?:set|sets|data|images?|imgs?|split|part|folder)")


def _split(text: str) -> list[str]:
    return text.split()


_GROUP_WORDS = frozenset(
    _split(
        "patient patients pat subject subjects subj person participant donor case mouse mice animal rat slide slides "
        "smear plate plates well wells specimen sample biopsy series study scan video clip sequence session batch "
        "experiment run replicate rep site hospital center centre camera field fov position location"
    )
)
_GROUP_LETTERS = frozenset(("p", "pt", "s", "sub", "id"))  # as in P01; words of a group if a number follows
_WELL = re.compile(r"[A-Pa-p](?:0?[1-9]|1\d|2[0-4])")
_CLASS_WORDS = frozenset(_split("class classes cls label type category grade stage score level species cd"))
_FOLD = re.compile(r"(?:fold|cv|kfold|f|k|split|partition|subset|set|part|round)\d+")

IMAGE_WORDS = frozenset(
    _split(
        "image images img imgs jpegimages jpgimages pngimages photo photos picture pictures raw original originals "
        "input inputs frames rgb"
    )
)
MASK_WORDS = frozenset(
    _split(
        "mask masks label labels annotation annotations annot annots anno segmentation segmentations seg segs gt "
        "groundtruth contours outlines"
    )
)

_LEFTOVERS = {
    "folder of thumbnails": ".thumbnails thumbnails .thumbs thumbs _thumbs _thumbnails .@__thumb thmbnl .thumb",
    "folder of previews": "preview previews .preview .previews _preview _previews .picasaoriginals",
    "folder of a cache": ".cache _cache __cache__ cache caches __pycache__ .mypy_cache .pytest_cache",
    "folder of notebook checkpoints": ".ipynb_checkpoints",
    "folder of a file server": "@eadir @tmp @sharebin .@upload_cache @recently-snapshot #snapshot .snapshot .snapshots "
    "lost+found .appledouble .afpdeleted",
    "recycle bin": "$recycle.bin recycler @recycle #recycle .recycle .trash .trashes",
    "folder of the operating system": "__macosx .spotlight-v100 .fseventsd .temporaryitems .documentrevisions-v100",
}
_LEFTOVER_KINDS = {name: kind for kind, names in _LEFTOVERS.items() for name in names.split()} | {
    "system volume information": "folder of the operating system",
    "network trash folder": "recycle bin",
    "temporary items": "folder of the operating system",
}


def words(name: str) -> tuple[str, ...]:
    """Return the words and numbers of a name in lower case: `seg_train2` has seg, train and 2."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    return tuple(re.findall(r"[^\W\d_]+|\d+", parted.casefold()))


def part_of(name: str) -> str | None:
    """Return the part that a name means (train, validation or test), by a word in it; None if it means none."""
    if (exact := PART_NAMES.get(name.casefold())) is not None:
        return exact
    found = set()
    for word in words(name):
        if (part := _PART_WORDS.get(word)) is not None:
            found.add(part)
        elif (glued := _GLUED.fullmatch(word)) is not None and glued["part"] in _PART_WORDS:
            found.add(_PART_WORDS[glued["part"]])
    if not found and "".join(words(name)) == "holdout":
        found.add("test")
    return found.pop() if len(found) == 1 else None


def is_exact_part(name: str) -> bool:
    """Return whether this is nothing but a part's name, such as `train` or `Val`."""
    return name.casefold() in PART_NAMES


def leftover(name: str) -> str | None:
    """Return the kind of a folder that a file server, camera, notebook or system leaves; None for any other name."""
    folded = name.casefold()
    if (kind := _LEFTOVER_KINDS.get(folded)) is not None:
        return kind
    if folded.startswith(".trash"):
        return "recycle bin"
    return "hidden folder" if name.startswith(".") else None


def are_folds(names: Collection[str]) -> bool:
    """Return whether these are the folds of a cross-validation, such as fold1 to fold5 or cv_0 and cv_1."""
    return len(names) > 1 and all(_FOLD.fullmatch("".join(words(name))) for name in names)


def are_named_groups(names: Collection[str]) -> bool:
    """Return whether every name says that it is a patient, slide, well or the like."""
    wells = all(_WELL.fullmatch(name) for name in names) and len({name[0].upper() for name in names}) > 1
    return len(names) > 1 and (wells or all(_is_named_group(name) for name in names))


def are_numbered(names: Collection[str], others: Collection[str]) -> bool:
    """Return whether these are the numbers of many things, such as P013 or 10253, far more than `others`.

    Numbers that count up from 0 or 1 are not: classes may be numbered so.
    """
    if len(names) < 5 or len(names) < 2 * len(others) or any(_CLASS_WORDS & set(words(name)) for name in names):
        return False
    if not all(re.search(r"\d", name) for name in names):
        return False
    if all(name.isascii() and name.isdigit() for name in names):
        return not _counts_up(names)
    if len(names) < 10 and _counts_up(re.findall(r"\d+", " ".join(names))) and not any("0" in name for name in names):
        return False  # such as D1 to D6, which may be anything
    return len({re.sub(r"\d+", "#", name.casefold()) for name in names}) <= max(1, len(names) // 4)


def _counts_up(numbers: Collection[str]) -> bool:
    found = sorted(int(number) for number in numbers)
    return found in (list(range(len(found))), list(range(1, len(found) + 1)))


def _is_named_group(name: str) -> bool:
    found = words(name)
    if _CLASS_WORDS & set(found) or not found:
        return False
    if _GROUP_WORDS & set(found):
        return any(word.isdigit() or len(word) == 1 for word in found)
    return (_WELL.fullmatch(name) is not None and len(name) == 3) or (
        len(found) == 2 and found[0] in _GROUP_LETTERS and found[1].isdigit()
    )


def shortly(names: Sequence[str], most: int = 5) -> str:
    """Return the first names of a list, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
