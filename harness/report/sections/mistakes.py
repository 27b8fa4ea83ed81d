"""The section with the surest mistakes on the test split, as images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.analysis import wording
from harness.analysis.study_data import StudyData
from harness.data.composite import caption
from harness.errors import HarnessError
from harness.report.images import address
from harness.report.section import CaptionedImage, Section
from harness.report.sections.data import channels
from harness.results.compressed import read_arrays

_OF_EACH = ("labels", "predicted", "probability", "seeds_wrong")


def mistakes_section(data: StudyData) -> Section | None:
    """Show the stored mistakes of the recommended winner, the surest first. No file names are shown.

    None if no mistakes are stored, if the stored file does not fit the study's classes or its recommendation, or if the
    study file keeps images off the page.
    """
    chosen, names = data.summary["recommendation"], data.summary["data"]["classes"]
    if chosen is None or not data.study.report.images:
        return None
    stored = _read(data.folder.mistakes)
    if stored is None or not _fits(stored, len(names), chosen["strategy"]):
        return None
    pairs = [(names[true], names[given]) for true, given in zip(stored["labels"], stored["predicted"], strict=True)]
    seeds = int(stored["seeds"])
    images = []
    for index, (true, given) in enumerate(pairs):
        taken = f"{true}, taken for {given}"
        how = f"{_sure(float(stored['probability'][index]))} sure, wrong in {stored['seeds_wrong'][index]} of {seeds}"
        lines = [taken, f"{how} {'seed' if seeds == 1 else 'seeds'}"]
        images.append(CaptionedImage(address(stored["images"][index]), taken, lines))
    who = wording.capital(wording.STRATEGY[chosen["strategy"]])
    note = (
        f"{who}, the recommended winner: the test images to which it gave a wrong class with the highest probability, "
        "the mean over the seeds; at most four of a true class. A label may be wrong, too."
        f" {caption(channels(data.card))}"
    ).rstrip()
    return Section("mistakes", heading(pairs), note=note, images=images)


def heading(pairs: Sequence[tuple[str, str]]) -> str:
    """Name the most frequent kind of mistake.

    Args:
        pairs: (true class, predicted class) of each mistake; one or more.
    """
    if len(pairs) == 1:
        return f"The surest mistake: {pairs[0][0]} taken for {pairs[0][1]}"
    counts = Counter(pairs)
    most = max(counts.values())
    top = [f"{true} taken for {given}" for (true, given), count in counts.items() if count == most]
    if most == 1 or len(top) > 2:
        return f"The {len(pairs)} surest mistakes are of {len(counts)} kinds"
    each = " each" if len(top) > 1 else ""
    return f"The surest mistakes: {wording.listed(top)}, {most}{each} of the {len(pairs)}"


def _sure(probability: float) -> str:
    """Write a probability: `94 %`. Never 100 %, which no softmax reaches."""
    return "over 99 %" if probability >= 0.995 else f"{probability * 100:.0f} %"


def _read(path: Path) -> dict[str, NDArray[Any]] | None:
    """Return the arrays of the file; None if it is missing or damaged."""
    try:
        return read_arrays(path)
    except HarnessError:
        return None


def _fits(stored: dict[str, NDArray[Any]], classes: int, strategy: str) -> bool:
    """Return whether the stored arrays fit each other, the study's classes and the recommended strategy."""
    if not {"images", "seeds", "strategy", *_OF_EACH} <= set(stored) or str(stored["strategy"]) != strategy:
        return False
    images = stored["images"]
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or not len(images):
        return False
    if any(stored[name].shape != images.shape[:1] for name in _OF_EACH):
        return False
    given = np.concatenate([stored["labels"], stored["predicted"]])
    return bool(given.min() >= 0 and given.max() < classes)
