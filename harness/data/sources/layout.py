"""The layout of a data folder: what its levels mean, recognised from what they have in common.

A layout is a tuple of levels from the top: class, split, group, * (any folder) or the name of one folder. One possible
reading is taken; if there are several, the error names them with the value of `data.layout` for each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from harness.data.sources import names as naming
from harness.data.sources import readings
from harness.data.sources.masks import unclear_masks
from harness.data.sources.readings import ANY, CLASS, GROUP, SPLIT, choices, has_files, names_of, ordered, refuse_flat
from harness.data.sources.tables_beside import file_labels
from harness.data.sources.tree import Folder
from harness.errors import DataError
from harness.safe_text import escape_name

_LEAST_GROUPS = 3  # that each class must have, so that its groups can be divided into three parts
_STRAY = 0.05  # share of images beside the folders of a level that does not change what the level means
_KEYWORDS = frozenset((CLASS, SPLIT, GROUP, ANY))


@dataclass(frozen=True)
class Layout:
    """What the levels mean. Files deeper than the last level belong to it."""

    levels: tuple[str, ...]
    reading: tuple[str, ...] = ()  # what was recognised, as sentences
    warnings: tuple[str, ...] = ()  # what a user should check


def recognise(top: Folder, shown: str, *, grouped: bool) -> Layout:
    """Return the layout of a folder.

    Args:
        top: the data folder, with masks set aside.
        shown: the data folder as messages name it.
        grouped: a rule for groups is given; then no level becomes the group.

    Raises:
        DataError: there are no folders of classes, or there are several readings.
    """
    found = _Recognition(shown, grouped)
    nodes = found.unwrap([top])
    refuse_flat(nodes[0], shown)
    parts = found.parts(nodes[0])
    if parts:
        found.levels.append(SPLIT)
        nodes = found.unwrap(parts)
    found.classes(nodes)
    return Layout(tuple(found.levels), tuple(found.reading), tuple(found.warnings))


class _Recognition:
    """The levels that are recognised so far, from the top, and the sentences about them."""

    def __init__(self, shown: str, grouped: bool) -> None:
        self.shown = shown
        self.grouped = grouped
        self.levels: list[str] = []
        self.reading: list[str] = []
        self.warnings: list[str] = []

    def unwrap(self, nodes: list[Folder]) -> list[Folder]:
        """Go down while each of these folders holds only one folder with images, and that one holds the others."""
        while (inner := [_wrapped(node) for node in nodes]) and all(one is not None for one in inner):
            held = [one for one in inner if one is not None]
            name = held[0].name
            same = all(one.name == name for one in held) and name not in _KEYWORDS
            self.levels.append(name if same else ANY)
            shown = naming.shortly([escape_name(one.path) for one in held])
            self.reading.append(
                f"The folder {shown} is the only one that holds images, so the folders inside were read."
            )
            nodes = held
        return nodes

    def parts(self, node: Folder) -> list[Folder]:
        """Return the folders of the parts inside; empty if there are none.

        Raises:
            DataError: parts hold images directly, or there are other folders beside them.
        """
        filled = node.filled()
        named = {folder.name: part for folder in filled if (part := naming.part_of(folder.name)) is not None}
        exact = [folder for folder in filled if naming.is_exact_part(folder.name)]
        distinct = set(named.values())
        holders = [folder for folder in filled if folder.name in named and folder.filled()]
        several = len(distinct) > 1 and ("train" in distinct or len(named) == len(filled))
        alone = bool(exact) and (len(exact) == len(filled) or any(folder.filled() for folder in exact))
        if not several and not alone:
            return []
        others = [folder for folder in filled if folder.name not in named]
        direct = [folder for folder in filled if folder.name in named and folder not in holders]
        if not holders:
            raise readings.flat_parts(self._path, node, direct, others, self.shown)
        if others:
            raise DataError(
                f"the data folder holds parts ({names_of(holders)}) and other folders beside them "
                f"({names_of(others)}): keep either parts or classes at the top, or say what they are in the study "
                "file:\n"
                + choices(
                    {
                        self._path(SPLIT, CLASS): f"leave {names_of(others)} aside",
                        self._path(CLASS): "every folder is a class",
                    }
                )
            )
        if direct:
            raise DataError(
                f"each part must hold one folder for each class, as {names_of(holders)} does, but {names_of(direct)} "
                "holds images directly, which have no class; sort them into folders, or leave them aside in the study "
                ""
                f"file:\n"
                + choices(
                    {self._path(folder.name, CLASS): f"only {escape_name(folder.name)} is read" for folder in holders}
                )
            )
        if len(exact) < len(filled):
            read = ", ".join(f"{escape_name(name)} as {part}" for name, part in sorted(named.items()))
            self.reading.append(f"The parts of the split were read from the names of folders: {read}.")
        return filled

    def classes(self, nodes: list[Folder]) -> None:
        """Append the levels from the classes on.

        Raises:
            DataError: there is more than one reading.
        """
        for node in nodes:
            if pairs := unclear_masks(node):
                raise readings.maybe_masks(self._path, pairs)
        tops: dict[str, list[Folder]] = defaultdict(list)
        for node in nodes:
            for folder in node.filled():
                tops[folder.name].append(folder)
        inner = {name: {kid.name for one in same for kid in one.filled()} for name, same in tops.items()}
        direct = sum(len(one.images) for same in tops.values() for one in same)
        if not all(inner.values()) or direct > _STRAY * sum(one.total for same in tops.values() for one in same):
            self._refuse_no_classes(nodes, tops)
            self.levels.append(CLASS)
            self._warn_of_groups(tops)
            return
        kids = set().union(*inner.values())
        under = {kid: sum(kid in held for held in inner.values()) for kid in kids}
        shared = sum(number > 1 for number in under.values()) * 2 >= len(kids)
        if len(kids) == 1 or len(tops) == 1:
            self.levels.append(CLASS)
            self._warn_of_groups(tops)
        elif self._parts_below(kids):
            if any(kid.filled() for same in tops.values() for one in same for kid in one.filled()):
                raise readings.inner_parts(self._path, sorted(tops), sorted(kids))
            self.levels += [CLASS, SPLIT]
            self.reading.append(f"The folders {ordered(kids)} inside the classes were read as parts of the split.")
        elif shared and (naming.are_folds(tops) or naming.are_folds(kids)):
            raise readings.several_readings(self._path, sorted(tops), sorted(kids), folds=True)
        elif shared:
            self._shared(sorted(tops), sorted(kids))
        elif naming.are_named_groups(kids) or naming.are_numbered(kids, tops):
            self._groups_below({name: len(held) for name, held in inner.items()}, sorted(kids))
        else:
            self.warnings.append(
                f"The classes are {ordered(tops)}; the folders inside them ({ordered(kids)}) count as part of them. If "
                f"the inner folders are the classes, set data.layout: '{self._path(ANY, CLASS)}'."
            )
            self.levels.append(CLASS)

    def _refuse_no_classes(self, nodes: list[Folder], tops: dict[str, list[Folder]]) -> None:
        """Refuse parts whose only folder is `images`, and a part that has no class in common with the others."""
        if SPLIT not in self.levels:
            return
        if len(tops) == 1 and naming.IMAGE_WORDS & set(naming.words(next(iter(tops)))):
            held = next(iter(tops.values()))
            hints = file_labels([name for folder in held for name in folder.images])
            raise DataError(
                f"the folders {ordered(folder.path for folder in held)} hold images directly, so the images have no "
                f"classes; put one folder for each class into each part{hints}, or list the images in a table."
            )
        train = [node for node in nodes if naming.part_of(node.path.split("/")[self.levels.index(SPLIT)]) == "train"]
        known = {folder.name for node in train for folder in node.filled()}
        for node in nodes:
            own = {folder.name for folder in node.filled()}
            if known and not own & known:
                layout = train[0].path + "/class"
                raise DataError(
                    f"each part must hold folders of the same classes, but {escape_name(node.path)} holds "
                    f"{ordered(own)}, and the training part {ordered(known)}; rename them, or leave that part aside in "
                    "the study file:\n" + choices({layout: f"only {escape_name(train[0].path)} is read"})
                )

    def _warn_of_groups(self, tops: Collection[str]) -> None:
        if naming.are_named_groups(tops):
            self.warnings.append(
                f"The classes are {ordered(tops)} by the folders, but these names look like patients, slides or the "
                "like; each class must have a folder of its own."
            )

    def _parts_below(self, kids: set[str]) -> bool:
        return (
            SPLIT not in self.levels
            and len({naming.part_of(kid) for kid in kids} - {None}) > 1
            and all(naming.part_of(kid) for kid in kids)
        )

    def _shared(self, tops: list[str], kids: list[str]) -> None:
        """Decide between groups above classes and groups below them, if the tops hold the same folders."""
        above = naming.are_named_groups(tops) or naming.are_numbered(tops, kids)
        below = naming.are_named_groups(kids) or naming.are_numbered(kids, tops)
        if above == below:
            raise readings.several_readings(self._path, tops, kids, folds=False)
        if below:
            self._groups_below({name: len(kids) for name in tops}, kids)
            return
        self.levels += [ANY if self.grouped else GROUP, CLASS]
        self.reading.append(
            f"The folders {ordered(tops)} hold the same folders {ordered(kids)}: these are the classes"
            + ("." if self.grouped else ", and the folders above are groups, of which each stays in one part.")
        )
        self.warnings.append(self.reading[-1])

    def _groups_below(self, numbers: dict[str, int], kids: list[str]) -> None:
        self.levels.append(CLASS)
        if self.grouped:
            return
        layout = self._path(GROUP)
        if min(numbers.values()) >= _LEAST_GROUPS:
            self.levels.append(GROUP)
            self.reading.append(
                f"The folders inside the classes ({ordered(kids)}) are groups, of which each stays in one part; "
                f"data.layout: '{self._path()[: -len(GROUP) - 1]}' reads them without groups."
            )
            self.warnings.append(self.reading[-1])
        else:
            self.warnings.append(
                f"The folders inside the classes ({ordered(kids)}) look like groups, but are too few to be divided; "
                f"data.layout: '{layout}' keeps each of them in one part of the split."
            )

    def _path(self, *more: str) -> str:
        """Return the levels so far and these as `data.layout`, for a message."""
        return escape_name("/".join((*self.levels, *more)))


def _wrapped(node: Folder) -> Folder | None:
    """Return the only folder inside that has images, if it is no class or part itself but holds those."""
    filled = node.filled()
    if len(filled) != 1 or node.images or naming.is_exact_part(filled[0].name):
        return None
    (inner,) = filled
    held = inner.filled()
    if not held or inner.images or any(has_files(other) for other in node.folders if other is not inner):
        return None
    if len(held) > 1:
        groups = {folder.name for folder in held}
        if naming.are_named_groups(groups) and all(folder.images for folder in held):
            return None  # one class, whose images lie in folders of patients or the like
        return inner
    return inner if naming.is_exact_part(held[0].name) or _wrapped(inner) is not None else None
