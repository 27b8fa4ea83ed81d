"""Store the surest mistakes of the recommended winner on the test split as small images for the page.

`analysis.surest_mistakes` selects them; this file reads the images, which only a study can do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.analysis.surest_mistakes import surest_mistakes
from harness.analysis.test_predictions import TestPredictions
from harness.atomic import atomic_path
from harness.config.fit import Fit
from harness.config.study import StudyConfig
from harness.data.composite import composite
from harness.results.event_types import VerdictReached

SIZE = 96  # pixels at most


def write_mistakes(predictions: TestPredictions | None, images: Mapping[Fit, Path], path: Path) -> None:
    """Write the test images that were wrongly classified with the highest probability, the surest first, to `path`.

    Without predictions, or if no image was wrong, nothing is stored and the file of an earlier verdict is deleted.

    Args:
        predictions: of the winner whose mistakes the page shows, see `recommended_winner`.
        images: array files with every image of the data.
        path: `mistakes.npz` of the study.

    Arrays, n images each: `images` (n, s, s, 3) uint8, s at most 96; `labels`, `predicted`; `probability` of the
    predicted class and `probability_true`, means over the seeds; `seeds_wrong`, how many seeds gave a wrong class;
    `rows` of the manifest. Beside them `seeds`, how many there are, and `strategy`.
    """
    worst = None if predictions is None else surest_mistakes(predictions)
    if predictions is None or worst is None or not worst.size:
        path.unlink(missing_ok=True)
        return
    mean = predictions.probabilities.mean(axis=0, dtype=np.float64)[worst]
    labels, predicted, each = predictions.labels[worst], mean.argmax(axis=1), np.arange(worst.size)
    with atomic_path(path) as temporary:
        np.savez_compressed(
            temporary,
            images=_small_images(images, predictions.rows[worst]),
            labels=labels,
            predicted=predicted,
            probability=mean[each, predicted],
            probability_true=mean[each, labels],
            seeds_wrong=(predictions.probabilities[:, worst].argmax(axis=2) != labels).sum(axis=0),
            rows=predictions.rows[worst],
            seeds=len(predictions.seeds),
            strategy=predictions.strategy,
        )


def recommended_winner(
    winners: Mapping[str, TestPredictions], verdict: VerdictReached, study: StudyConfig
) -> TestPredictions | None:
    """Return the predictions of the recommended winner; None without one, or if the page must not show images."""
    return winners.get(verdict.recommended_strategy or "") if study.report.images else None


def _small_images(files: Mapping[Fit, Path], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Read these images as RGB, (n, s, s, 3), from the smallest array of at least SIZE pixels, and shrink them."""
    size = min((one for one in files if one.side >= SIZE), default=max(files))
    stored = np.ascontiguousarray(np.load(files[size], mmap_mode="r")[rows])
    images = composite(stored)
    if size.side <= SIZE:
        return images
    shape = (SIZE, SIZE)
    return np.stack([np.asarray(Image.fromarray(image).resize(shape, Image.Resampling.LANCZOS)) for image in images])
