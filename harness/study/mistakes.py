"""The surest mistakes of the recommended winner on the test split, kept as small images for the page."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.config.study import StudyConfig
from harness.files import whole
from harness.report.scored import Side, sides
from harness.results.event_types import VerdictReached
from harness.results.home import StudyFolder
from harness.results.study_state import StudyState
from harness.study.prepare import Prepared

AT_MOST = 12  # images
OF_A_CLASS = 4  # images of one true class, so that one hard class does not fill the page
SIZE = 96  # pixels at most


class Concluded(Protocol):
    """What of a session, or of what is left of one, the mistakes are taken from."""

    @property
    def prepared(self) -> Prepared:
        """The images."""

    @property
    def study(self) -> StudyConfig:
        """Whether the page may show images."""

    @property
    def folder(self) -> StudyFolder:
        """Where predictions lie and mistakes go."""

    @property
    def state(self) -> StudyState:
        """What was scored."""


def write_mistakes(session: Concluded, verdict: VerdictReached) -> None:
    """Write `mistakes.npz`: the test images that were wrong with the highest probability, the surest first.

    The labels come from the predictions that confirmation wrote. Nothing is stored where the study's file keeps images
    off the page, where nothing was recommended, or where no image was wrong; a file of an earlier verdict then goes.

    Arrays, n images each: `images` (n, s, s, 3) uint8, s at most 96; `labels`, `predicted`; `probability` of the
    predicted class and `probability_true`, means over the seeds; `seeds_wrong`, how many seeds gave a wrong class;
    `rows` of the manifest. Beside them `seeds`, how many there are, and `strategy`.
    """
    path = session.folder.mistakes
    side = _recommended(session, verdict) if session.study.report.images else None
    picked = None if side is None else surest_mistakes(side)
    if side is None or picked is None or not picked.size:
        path.unlink(missing_ok=True)
        return
    mean = side.probabilities.mean(axis=0, dtype=np.float64)[picked]
    labels, predicted, each = side.labels[picked], mean.argmax(axis=1), np.arange(picked.size)
    with whole(path) as temporary:
        np.savez_compressed(
            temporary,
            images=_small(session.prepared.context.images, side.rows[picked]),
            labels=labels,
            predicted=predicted,
            probability=mean[each, predicted],
            probability_true=mean[each, labels],
            seeds_wrong=(side.probabilities[:, picked].argmax(axis=2) != labels).sum(axis=0),
            rows=side.rows[picked],
            seeds=len(side.seeds),
            strategy=side.strategy,
        )


def surest_mistakes(side: Side) -> NDArray[np.int64]:
    """Positions (n,) of the images of `side` that were wrong on the mean over seeds, the highest probability first."""
    mean = side.probabilities.mean(axis=0, dtype=np.float64)
    wrong = np.flatnonzero(mean.argmax(axis=1) != side.labels)
    taken: dict[int, int] = {}
    picked: list[int] = []
    for position in wrong[np.argsort(-mean[wrong].max(axis=1), kind="stable")].tolist():
        label = int(side.labels[position])
        if taken.get(label, 0) < OF_A_CLASS and len(picked) < AT_MOST:
            taken[label] = taken.get(label, 0) + 1
            picked.append(position)
    return np.array(picked, np.int64)


def _recommended(session: Concluded, verdict: VerdictReached) -> Side | None:
    """The winner that the verdict recommends, as scored on test."""
    return sides(session.state, session.folder, "winner").get(verdict.recommended_strategy or "")


def _small(files: dict[int, Path], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """These images (n, s, s, 3) in 8 bits, from the smallest array that has the pixels, made smaller where needed."""
    size = min((size for size in files if size >= SIZE), default=max(files))
    stored = np.ascontiguousarray(np.load(files[size], mmap_mode="r")[rows])
    images = (stored >> 8).astype(np.uint8) if stored.dtype == np.uint16 else stored
    if size <= SIZE:
        return np.asarray(images, np.uint8)
    shape = (SIZE, SIZE)
    return np.stack([np.asarray(Image.fromarray(image).resize(shape, Image.Resampling.LANCZOS)) for image in images])
