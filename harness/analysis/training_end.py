"""Whether a winner was trained to the end, or its validation score still rose when its epochs were used up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.results.metrics import sign_of
from harness.results.records import TrialRecord

LAST = 4  # the last quarter of the epochs is looked at


@dataclass(frozen=True)
class Rise:
    """How much a validation score rose over the last epochs, as a mean over the seeds; positive is better."""

    gain: float
    epochs: int  # over how many epochs
    of: int  # epochs of a training


def still_rising(runs: Sequence[TrialRecord], objective: str) -> Rise | None:
    """Return how much the score rose over the last quarter of the epochs; None if that is not more than its spread.

    The spread is the standard deviation of the rise over the seeds. Runs that ended early are not looked at.

    Args:
        runs: one configuration's complete runs, one for each seed.
    """
    whole = [run for run in runs if len(run.epochs) == run.config.epochs]
    if len(whole) < 2 or whole[0].config.epochs < 2:
        return None
    epochs = whole[0].config.epochs
    last = max(1, epochs // LAST)
    scores = np.array([[epoch.validation[objective] for epoch in run.epochs] for run in whole])
    gains = sign_of(objective) * (scores[:, -1] - scores[:, -1 - last])
    gain = float(np.mean(gains))
    return Rise(gain, last, epochs) if gain > np.std(gains, ddof=1) and gain > 0 else None
