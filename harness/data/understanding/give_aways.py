"""Give-aways: facts about the files, such as format, size or camera, that tell the class without what the image shows.

A small decision tree on such facts alone is cross-validated. If it beats guessing clearly, a model may learn the same
shortcut, and its score says little about new images that lack it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.data.decoding.decode import Facts
from harness.data.traits import Traits

DEPTH = 3  # of the tree
FOLDS = 5
FEWEST = 6  # images of the smallest class; with fewer, a score says too little
GAIN = 0.25  # of the way from guessing to certain that a fact must come, to be named
SURE = 4.0  # standard errors above guessing that it must come, to be named
_MOST = 20_000  # images that the tree looks at
_SHOWN = 4  # classes in a message

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class GiveAway:
    """A fact that tells the class: the balanced accuracy, in [0, 1], of a small tree that knows nothing else."""

    fact: str
    balanced_accuracy: float
    values: str  # its commonest value in some classes, in words

    def sentence(self, classes: int) -> str:
        """Return the warning."""
        return (
            f"The class can be told from {self.fact} alone: a small decision tree on it has a balanced accuracy of "
            f"{self.balanced_accuracy:.0%} (guessing: {1 / classes:.0%}). A model may learn this instead of what the "
            f"images show ({self.values})."
        )


def looked_at(count: int) -> NDArray[np.int64]:
    """Return the rows, ascending, of the images that the tree looks at: all, or a fixed random choice of very many."""
    if count <= _MOST:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).permutation(count)[:_MOST])


def give_aways(
    facts: Sequence[Facts], traits: Sequence[Traits], labels: Labels, groups: Sequence[str], classes: Sequence[str]
) -> list[GiveAway]:
    """Return the facts that tell the class, the most telling first; facts with equal values in all images do not count.

    Args:
        facts, traits: of each image that is `looked_at`.
        labels: (N,) index into `classes`.
        groups: of each image, "" for none. Folds keep groups together.
    """
    counts = np.bincount(labels, minlength=len(classes))
    if counts.min() < FEWEST:
        return []
    found = []
    for name, values in _tables(facts, traits).items():
        columns = _columns(values)
        if columns.shape[1] == 0:
            continue
        recalls, error = _recalls(columns, labels, groups, len(classes))
        score, chance = float(recalls.mean()), 1 / len(classes)
        if score - chance >= max(GAIN * (1 - chance), SURE * error):
            found.append(GiveAway(name, score, _in_words(values, labels, recalls, classes)))
    return sorted(found, key=lambda one: -one.balanced_accuracy)


def _tables(facts: Sequence[Facts], traits: Sequence[Traits]) -> dict[str, pd.DataFrame]:
    """Return the values of each fact; numbers are compared, and words are told apart."""
    kinds = [fact.kind.split() for fact in facts]
    return {
        "the file format": pd.DataFrame({"format": [kind[-1] for kind in kinds]}),
        "bit depth and colour type": pd.DataFrame({"type": [" ".join(kind[:-1]) for kind in kinds]}),
        "the image size": pd.DataFrame({"width": [f.width for f in facts], "height": [f.height for f in facts]}),
        "the brightness of the border": pd.DataFrame({"border": [trait.border for trait in traits]}),
        "the camera": pd.DataFrame({"camera": [trait.camera or "none" for trait in traits]}),
        "the date": pd.DataFrame({"date": [_day(trait.taken) for trait in traits]}),
    }


def _day(date: str) -> float:
    """Return a date as a number of days; -1 if there is none, or if it is not a date."""
    try:
        return float(np.datetime64(date, "D").astype(np.int64)) if date else -1.0
    except ValueError:
        return -1.0


def _columns(values: pd.DataFrame) -> NDArray[np.float64]:
    """Return the values as numbers, (N, columns): words as one column each, without columns of one value."""
    parts = []
    for name in values:
        column = values[name]
        table = pd.get_dummies(column) if not pd.api.types.is_numeric_dtype(column) else column.to_frame()
        parts.append(table.to_numpy(np.float64))
    columns = np.concatenate(parts, axis=1)
    return np.asarray(columns[:, (columns != columns[:1]).any(axis=0)])


def _recalls(
    columns: NDArray[np.float64], labels: Labels, groups: Sequence[str], classes: int
) -> tuple[NDArray[np.float64], float]:
    """Return the cross-validated recall of each class, and the standard error of their mean if the tree guessed."""
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.tree import DecisionTreeClassifier

    counts = np.bincount(labels, minlength=classes)
    units = np.array([group or f"\0{row}" for row, group in enumerate(groups)])
    _, codes = np.unique(units, return_inverse=True)
    folds = min(FOLDS, int(counts.min()), int(codes.max()) + 1)
    right = np.zeros(len(labels), bool)
    leaf = max(2, int(counts.min()) // 5)
    for train, test in StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(columns, labels, codes):
        tree = DecisionTreeClassifier(
            max_depth=DEPTH, min_samples_leaf=leaf, class_weight="balanced", random_state=0
        ).fit(columns[train], labels[train])
        right[test] = tree.predict(columns[test]) == labels[test]
    recalls = np.bincount(labels, weights=right, minlength=classes) / counts
    units_of = np.array([len(np.unique(codes[labels == label])) for label in range(classes)])
    chance = 1 / classes
    error = float(np.sqrt((chance * (1 - chance) / units_of).sum())) / classes  # groups, because their images are alike
    return recalls, error


def _in_words(values: pd.DataFrame, labels: Labels, recalls: NDArray[np.float64], classes: Sequence[str]) -> str:
    """Return what is typical of the classes that the tree recognises best: the commonest word, or the median."""
    said = []
    for label in np.argsort(-recalls, kind="stable")[:_SHOWN].tolist():
        own = values[labels == label]
        typical = " × ".join(_typical(own[name]) for name in own)
        said.append(f"{classes[label]}: {typical}")
    return ", ".join(said) + (", …" if len(classes) > _SHOWN else "")


def _typical(column: pd.Series) -> str:
    if pd.api.types.is_numeric_dtype(column):
        middle = float(column.median())
        if column.name == "date":
            return str(np.datetime64(int(middle), "D")) if middle >= 0 else "no date"
        return f"{middle:.2f}" if column.name == "border" else f"{middle:.0f}"
    word, count = Counter(column).most_common(1)[0]
    return f"{word} ({count} of {len(column)})"
