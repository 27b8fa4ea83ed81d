"""The test images that the recommended winner got wrong with the highest probability."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.analysis.test_predictions import TestPredictions

AT_MOST = 12  # images
OF_A_CLASS = 4  # images of one true class, so that one hard class does not fill the page


def surest_mistakes(predictions: TestPredictions) -> NDArray[np.int64]:
    """Return the positions (n,) of images that are wrong on the mean over seeds, the highest probability first.

    There are OF_A_CLASS of a true class and AT_MOST in all, at most.
    """
    mean = predictions.probabilities.mean(axis=0, dtype=np.float64)
    wrong = np.flatnonzero(mean.argmax(axis=1) != predictions.labels)
    taken: dict[int, int] = {}
    picked: list[int] = []
    for position in wrong[np.argsort(-mean[wrong].max(axis=1), kind="stable")].tolist():
        label = int(predictions.labels[position])
        if taken.get(label, 0) < OF_A_CLASS and len(picked) < AT_MOST:
            taken[label] = taken.get(label, 0) + 1
            picked.append(position)
    return np.array(picked, np.int64)
