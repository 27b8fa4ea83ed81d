"""Refusals of a data folder that has no classes, or several readings, each with the value of `data.layout` for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from harness.data.sources import names as naming
from harness.data.sources.tables_beside import file_labels, tables_beside
from harness.data.sources.tree import Folder
from harness.errors import DataError
from harness.safe_text import escape_name, listed

CLASS, SPLIT, GROUP, ANY = "class", "split", "group", "*"

Levels = Callable[..., str]  # makes `data.layout` of levels, with those that are recognised already before them


def several_readings(path: Levels, tops: list[str], kids: list[str], *, folds: bool) -> DataError:
    """Return the error about folders that hold folders of the same names."""
    above, below = naming.shortly([escape_name(n) for n in tops]), naming.shortly([escape_name(n) for n in kids])
    readings = {
        path(ANY, CLASS): f"the classes are {below}; {above} are put together",
        path(GROUP, CLASS): f"the classes are {below}; each of {above} stays in one part of the split",
        path(CLASS): f"the classes are {above}; the folders inside them do not matter",
        path(CLASS, GROUP): f"the classes are {above}; each of {below} stays in one part of the split",
    }
    return DataError(
        f"the folders {above} hold folders of the same names ({below})"
        + (", as the folds of a cross-validation do" if folds else "")
        + ", so there are several readings; say in the study file which one is meant:\n"
        + choices(readings)
    )


def inner_parts(path: Levels, tops: list[str], kids: list[str]) -> DataError:
    """Return the error about folders such as folds, each of which holds parts with classes."""
    above, below = ordered(tops), ordered(kids)
    return DataError(
        f"each of the folders {above} holds parts of a split ({below}) with folders inside; say in the study file "
        "which folders are read:\n"
        + choices(
            {
                path(tops[0], SPLIT, CLASS): f"only {escape_name(tops[0])} is read",
                path(ANY, SPLIT, CLASS): f"{above} are put together",
                path(CLASS, SPLIT): f"the classes are {above}",
            }
        )
    )


def maybe_masks(path: Levels, pairs: list[tuple[str, str]]) -> DataError:
    """Return the error about pairs of folders of which the second may hold masks of the first."""
    shown = [f"{escape_name(images)} and {escape_name(masks)}" for images, masks in pairs]
    dropped = ", ".join(escape_name(masks) for _, masks in pairs)
    return DataError(
        f"the folders {'; '.join(shown)} hold files of the same names, so the second may hold masks of the first, "
        f"or be a class; say in the study file which one is meant:\n  - data.classes: {{drop: [{dropped}]}}   with "
        f"data.layout: '{path(CLASS)}', if they are masks\n" + choices({path(CLASS): "all are classes"})
    )


def flat_parts(path: Levels, node: Folder, direct: list[Folder], others: list[Folder], shown: str) -> DataError:
    """Return the error about parts that hold images directly."""
    hints = file_labels([name for folder in direct for name in folder.images]) + tables_beside(node, shown)
    beside = f" (beside {names_of(others)})" if others else ""
    return DataError(
        f"the folders {names_of(direct)}{beside} are parts of a split by their names, but they hold images directly, "
        f"so the images have no classes; put one folder for each class into each part{hints}; or, if these are "
        "the classes, say so in the study file:\n" + choices({path(CLASS): f"{names_of(direct + others)} are classes"})
    )


def refuse_flat(node: Folder, shown: str) -> None:
    """Refuse a folder whose images lie in no folder of a class."""
    filled = node.filled()
    single = filled[0] if len(filled) == 1 and not node.images else None
    flat = node if node.images and not filled else None
    if single is not None and not single.filled():
        said = naming.IMAGE_WORDS & set(naming.words(single.name)) or tables_beside(node, shown)
        flat = single if said else flat
    if flat is None or any(folder.total == 0 and has_files(folder) for folder in node.folders):
        return
    where = f"the folder {escape_name(flat.path)}" if flat.path else f"the data folder {shown}"
    hints = file_labels(flat.images) + tables_beside(node, shown, flat if flat is not node else None)
    raise DataError(
        f"{where} holds {len(flat.images)} images directly, so they have no classes; put them into one folder for each "
        f"class, or list them in a table with the columns path and label{hints}."
    )


def has_files(folder: Folder) -> bool:
    """Return whether a folder without readable images holds files that may be images of another format."""
    texts = (".txt", ".csv", ".tsv", ".md", ".json", ".xml", ".yaml", ".yml", ".py", ".ipynb", ".html", ".pdf", ".log")
    return any(not name.lower().endswith(texts) for one in folder.walk() for name, _, _ in one.others)


def choices(readings: dict[str, str]) -> str:
    """Return the readings as a list, each with its value of `data.layout`."""
    width = max(len(_quoted(layout)) for layout in readings)
    return listed(
        f"data.layout: {_quoted(layout)}{' ' * (width - len(_quoted(layout)))}   {meaning}"
        for layout, meaning in readings.items()
    )


def _quoted(layout: str) -> str:
    plain = layout.replace("/", "").replace("_", "").replace("-", "")
    return layout if plain.isalnum() else f"'{escape_name(layout)}'"


def names_of(folders: list[Folder]) -> str:
    """Return the names of folders for a message, the first five in their order."""
    return naming.shortly(sorted(escape_name(folder.name) for folder in folders))


def ordered(found: Iterable[str]) -> str:
    """Return names for a message, the first five in their order."""
    return naming.shortly(sorted(escape_name(name) for name in found))
