"""The surest mistakes on the test split, as images: what the recommended winner took for something else."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.analysis import wording
from harness.analysis.study_data import StudyData
from harness.report.images import address
from harness.report.section import Section, Shot

_OF_EACH = ("labels", "predicted", "probability", "seeds_wrong")


def mistakes_section(data: StudyData) -> Section | None:
    """The stored mistakes of the recommended winner, the surest first.

    None where none are stored, where the file does not fit the study's classes or its recommendation, and where the
    study's file keeps images off the page. No name of a file is shown.
    """
    chosen, names = data.summary["recommendation"], data.summary["data"]["classes"]
    if chosen is None or not data.study.report.images:
        return None
    stored = _read(data.folder.mistakes)
    if stored is None or not _fits(stored, len(names), chosen["strategy"]):
        return None
    pairs = [(names[true], names[given]) for true, given in zip(stored["labels"], stored["predicted"], strict=True)]
    seeds = int(stored["seeds"])
    shots = []
    for index, (true, given) in enumerate(pairs):
        taken = f"{true}, taken for {given}"
        how = f"{_sure(float(stored['probability'][index]))} sure, wrong in {stored['seeds_wrong'][index]} of {seeds}"
        lines = [taken, f"{how} {'seed' if seeds == 1 else 'seeds'}"]
        shots.append(Shot(address(stored["images"][index]), taken, lines))
    who = wording.capital(wording.STRATEGY[chosen["strategy"]])
    note = (
        f"{who}, the recommended winner: the test images to which it gave a wrong class with the highest probability, "
        "the mean over the seeds; at most four of a true class. A label may be wrong, too."
    )
    return Section("mistakes", heading(pairs), note=note, shots=shots)


def heading(pairs: Sequence[tuple[str, str]]) -> str:
    """The commonest kind among the mistakes (true class, given class), of which there is one at least."""
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
    """`94 %`; never 100 %, which no softmax reaches."""
    return "over 99 %" if probability >= 0.995 else f"{probability * 100:.0f} %"


def _read(path: Path) -> dict[str, NDArray[Any]] | None:
    """The arrays of the file; None where it is missing or damaged."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def _fits(stored: dict[str, NDArray[Any]], classes: int, strategy: str) -> bool:
    if not {"images", "seeds", "strategy", *_OF_EACH} <= set(stored) or str(stored["strategy"]) != strategy:
        return False
    images = stored["images"]
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or not len(images):
        return False
    if any(stored[name].shape != images.shape[:1] for name in _OF_EACH):
        return False
    given = np.concatenate([stored["labels"], stored["predicted"]])
    return bool(given.min() >= 0 and given.max() < classes)
