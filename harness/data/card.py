"""The data card: facts about the images that a reader should know before trusting a score on them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.config.data import DataConfig
from harness.data.dataset import Dataset
from harness.data.sources.listing import PARTS
from harness.data.understanding.findings import Findings


def data_card(
    dataset: Dataset,
    config: DataConfig,
    parts: NDArray[np.str_],
    image_size: int,
    findings: Findings | None = None,
    value_range: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Return the card as plain JSON values.

    Args:
        parts: (N,) of train, validation, test and unused, as returned by `harness.data.split.draw`.
        image_size: size at which the study trains, in pixels a side.
        findings: near duplicates and warnings; None if nobody looked.
        value_range: sample values that became black and white, with `bit_depth: used`.
    """
    table, scanned = dataset.table, dataset.card
    grouped = table["group"] != ""
    counts = {part: table["label"][parts == part].value_counts() for part in PARTS}
    of_class = table["label"].value_counts()
    split = {part: int((parts == part).sum()) for part in (*PARTS, "unused")}
    return {
        "name": config.name or dataset.name,
        "source": config.name or scanned["source"],
        "rendered": dataset.rendered,
        "images": len(table),
        "classes": [
            {
                "name": name,
                "count": int(of_class.get(label, 0)),
                **{part: int(counts[part].get(label, 0)) for part in PARTS},
            }
            for label, name in enumerate(dataset.classes)
        ],
        "groups": int(table["group"][grouped].nunique()) if grouped.any() else None,
        "group_rule": scanned["group_rule"],
        "digest": dataset.digest,
        "sizes": scanned["sizes"],
        "kinds": scanned["kinds"],
        "channels": dataset.channels,
        "left_aside": scanned["left_aside"],
        "split_from": scanned["split_from"],
        "skipped": scanned["skipped"],
        "converted": scanned["converted"],
        "duplicates": scanned["duplicates"],
        "near_duplicates": len(findings.near) if findings else 0,
        "warnings": list(findings.warnings) if findings else list(dataset.warnings),
        "image_size": image_size,
        "resize": config.resize,
        "bit_depth": config.bit_depth,
        "value_range": None if value_range is None else list(value_range),
        "frames": config.frames,
        "split": split,
        "split_groups": {part: int(table["group"][grouped & (parts == part)].nunique()) for part in PARTS},
        "notes": [*scanned["notes"], *_notes(dataset, config, parts)],
    }


def _notes(dataset: Dataset, config: DataConfig, parts: NDArray[np.str_]) -> list[str]:
    """Return sentences about facts that could mislead a reader."""
    table, notes = dataset.table, list[str]()
    if (table["group"] == "").all():
        notes.append("No groups are given: if images share a slide, patient or plate, scores are too good.")
    fixed = sorted(set(table["fixed_split"]) - {""}, key=PARTS.index)
    if fixed:
        notes.append(f"Fixed by the data: {', '.join(fixed)}; other parts are drawn.")
    if (parts == "unused").any():
        notes.append(
            f"limit: {config.limit} leaves {int((parts == 'unused').sum())} images unused; the test part is whole."
        )
    if dataset.card["skipped"]:
        notes.append(f"{len(dataset.card['skipped'])} unreadable images are skipped.")
    if dataset.card["duplicates"]:
        notes.append(f"{dataset.card['duplicates']} images are copies of others; copies stay in one part.")
    count = table["label"].value_counts()
    if len(count) and count.max() > 5 * count.min():
        notes.append(
            f"Classes are unbalanced: the largest has {count.max() / count.min():.0f} times the images of the smallest."
        )
    return notes
