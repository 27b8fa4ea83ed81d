"""References for the winners' scores: guessing, the most frequent class, and nearest neighbours on frozen features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.analysis.test_predictions import TestPredictions
from harness.config.initial_weights import DEFAULT
from harness.results.metrics import METRICS, guessing, score
from harness.results.study_state import StudyState


def references(
    state: StudyState, winners: Mapping[str, TestPredictions], card: Mapping[str, Any], objective: str
) -> dict[str, Any]:
    """Return the block `references` of summary.json; a value that is not known is None.

    `guessing` is the best that is possible without looking at the images. `most_frequent_class` is what answering
    always with the most frequent class of the training images gives; None if the metric needs probabilities.
    `neighbours` has an entry for each backbone (and weights, if a study compares several), the best first: the
    means over its seeds of every metric on test (`test`, `test_mean` is the objective's) and of the objective on
    validation, and the number of neighbours that vote at each seed.
    """
    labels = next((winner.labels for winner in winners.values()), None)
    counts = [entry.get("train", 0) for entry in card.get("classes", [])]
    guess = frequent = None
    if labels is not None:
        guess = guessing(objective, labels)
        if any(counts) and not METRICS[objective].needs_probabilities:
            frequent = score(objective, np.full(labels.size, np.argmax(counts)), labels, len(counts))
    return {"guessing": guess, "most_frequent_class": frequent, "neighbours": _neighbours(state, objective)}


def _neighbours(state: StudyState, objective: str) -> list[dict[str, Any]]:
    found = []
    for backbone, weights in sorted({key[:2] for key in state.references}):
        own = [state.references[key] for key in sorted(state.references) if key[:2] == (backbone, weights)]
        means = {name: float(np.mean([one.metrics[name] for one in own])) for name in METRICS}
        found.append(
            {
                "backbone": backbone if weights == DEFAULT else f"{backbone} ({weights})",
                "seeds": len(own),
                "numbers": [one.neighbours for one in own],
                "validation_mean": float(np.mean([one.validation_score for one in own])),
                "test_mean": means[objective],
                "test": means,
            }
        )
    return sorted(found, key=lambda entry: -METRICS[objective].sign * entry["test_mean"])
