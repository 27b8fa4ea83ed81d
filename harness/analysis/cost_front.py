"""The Pareto front of score against cost: the trials that no other trial beats in both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.analysis import wording
from harness.config.trial import DEPTH_MAX
from harness.results.metrics import sign_of


@dataclass(frozen=True)
class Point:
    """A trial on the front: no cheaper trial scored as well, and no trial as cheap scored better."""

    strategy: str
    seconds: float  # device seconds of the training alone
    score: float
    names: tuple[str, str]  # backbone ("" if all trials have the same) and depth


def front(trials: pd.DataFrame, objective: str) -> list[Point]:
    """Return the Pareto front of score against `seconds_alone`, the cheapest first; of equal trials only the first.

    Args:
        trials: complete trials with `score` and `seconds_alone` above 0.
    """
    goodness = sign_of(objective) * trials["score"].to_numpy(float)
    seconds = trials["seconds_alone"].to_numpy(float)
    order = np.lexsort((-goodness, seconds))
    best = np.maximum.accumulate(goodness[order])
    rows = order[np.flatnonzero(np.concatenate([[True], best[1:] > best[:-1]]))]
    several = trials["backbone"].nunique() > 1
    return [
        Point(
            str(row["strategy"]),
            float(row["seconds_alone"]),
            float(row["score"]),
            (str(row["backbone"]) if several else "", depth_text(str(row["strategy"]), int(row["unfreeze_depth"]))),
        )
        for row in trials.iloc[rows].to_dict("records")
    ]


def depth_text(strategy: str, depth: int) -> str:
    """Name what a trial trains: `head only`, `3 stages`, `all stages`, `from scratch`."""
    if strategy == "from_scratch":
        return "from scratch"
    if depth >= DEPTH_MAX:
        return "all stages"
    return wording.count(depth, "stage") if depth else "head only"
