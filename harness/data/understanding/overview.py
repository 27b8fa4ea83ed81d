"""The overview of a data set: what a study would see, as rows for a person and as JSON for a program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.data.dataset import Dataset
from harness.data.sources.listing import PARTS, SPLIT_FROM, LeftAside
from harness.data.understanding.findings import Findings


@dataclass(frozen=True)
class Overview:
    """What a study would see of its data. Counts are images."""

    source: str
    classes: dict[str, dict[str, int]]  # train, validation and test of each class
    images: int
    unused: int  # left out by `limit`
    groups: int
    group_rule: str | None
    split: str  # folders, column or drawn
    missing_parts: tuple[str, ...]  # parts that are drawn although the data give others
    kinds: dict[str, int]
    sizes: str
    copies: int  # images that occur again
    near_pairs: int
    left_aside: tuple[LeftAside, ...]
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the overview as plain JSON values."""
        aside = [
            {"reason": one.reason, "class": one.label, "count": one.count, "example": one.example}
            for one in self.left_aside
        ]
        values = asdict(self) | {"left_aside": aside, "warnings": list(self.warnings)}
        return values | {"missing_parts": list(self.missing_parts)}

    def rows(self) -> list[tuple[str, str]]:
        """Return name and value of each fact, without the classes."""
        split = SPLIT_FROM[self.split]
        if self.split != "drawn" and self.missing_parts:
            split += f", {' and '.join(self.missing_parts)} drawn at random"
        facts = [
            ("Source", self.source),
            ("Images", f"{self.images:,} in {len(self.classes)} classes" + self._unused()),
            ("Split", f"{split}: {self._shares()}"),
            ("Groups", f"{self.groups:,} by {self.group_rule}" if self.groups else "none"),
            ("Kinds", ", ".join(f"{kind} ({count:,})" for kind, count in self.kinds.items())),
            ("Sizes", self.sizes),
            ("Copies", f"{self.copies:,} images occur again" if self.copies else "none"),
            ("Near copies", f"{self.near_pairs:,} pairs" if self.near_pairs else "none"),
        ]
        for one in self.left_aside:
            of = f" in {one.label}" if one.label else ""
            facts.append(("Left aside", f"{one.count:,} × {one.reason}{of}, such as {one.example}"))
        return facts

    def sentence(self) -> str:
        """Return the short form, which a study shows before its first trial."""
        groups = f", {self.groups:,} groups by {self.group_rule}" if self.groups else ", no groups"
        counts = [sum(parts.values()) for parts in self.classes.values()]
        each = f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"
        aside = sum(one.count for one in self.left_aside)
        used = f"{self.images - self.unused:,} of {self.images:,}" if self.unused else f"{self.images:,}"
        left = f" {aside:,} files or folders are left aside." if aside else ""
        return (
            f"Data: {used} images in {len(self.classes)} classes ({each} each){groups}; the split is "
            f"{SPLIT_FROM[self.split]}: {self._shares()}.{left}"
        )

    def _unused(self) -> str:
        return f", {self.unused:,} of them unused" if self.unused else ""

    def _shares(self) -> str:
        total = max(self.images - self.unused, 1)
        counts = {part: sum(own[part] for own in self.classes.values()) for part in PARTS}
        return ", ".join(f"{part} {count:,} ({count / total:.0%})" for part, count in counts.items())


def overview_of(dataset: Dataset, parts: NDArray[np.str_], findings: Findings) -> Overview:
    """Return the overview of a data set.

    Args:
        parts: (N,) of train, validation, test and unused.
    """
    table, card = dataset.table, dataset.card
    counts = pd.crosstab(table["label"], parts).reindex(columns=list(PARTS), fill_value=0)
    fixed = set(table["fixed_split"]) - {""}
    return Overview(
        source=card["source"],
        classes={
            name: {part: int(counts[part].get(label, 0)) for part in PARTS}
            for label, name in enumerate(dataset.classes)
        },
        images=len(table),
        unused=int((parts == "unused").sum()),
        groups=int(table["group"][table["group"] != ""].nunique()),
        group_rule=card["group_rule"],
        split=card["split_from"],
        missing_parts=tuple(part for part in PARTS if part not in fixed) if fixed else (),
        kinds=card["kinds"],
        sizes=_sizes(zip(table["width"], table["height"], strict=True)),
        copies=card["duplicates"],
        near_pairs=len(findings.near),
        left_aside=tuple(LeftAside(**one) for one in card["left_aside"]),
        warnings=findings.warnings,
    )


def _sizes(sizes: Iterable[tuple[int, int]]) -> str:
    """Return the commonest sizes in words, and the range if there are many."""
    found = Counter((int(width), int(height)) for width, height in sizes)
    if len(found) <= 3:
        return ", ".join(f"{w} × {h} px ({count:,})" for (w, h), count in found.most_common())
    widths, heights = {w for w, _ in found}, {h for _, h in found}
    (w, h), count = found.most_common(1)[0]
    return (
        f"{len(found):,} sizes of {min(widths)} to {max(widths)} × {min(heights)} to {max(heights)} px, most often "
        f"{w} × {h} ({count:,})"
    )
