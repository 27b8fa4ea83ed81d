"""The section with the confusion matrix of the recommended winner on the test split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from harness.analysis import wording
from harness.analysis.study_data import StudyData
from harness.analysis.test_predictions import TestPredictions
from harness.report import style
from harness.report.section import Section
from harness.report.style import Picture, drawing, picture
from harness.results.metrics import confusion

NUMBERS_AT_MOST = 16  # classes; the cells of a larger matrix have no room for numbers


def confusion_section(data: StudyData) -> Section | None:
    """Show which classes the recommended winner confused on the test split; None if nothing is recommended."""
    found = recommended_counts(data)
    if found is None:
        return None
    winner, counts = found
    names = data.class_names(counts.shape[0])
    images = wording.test_images(winner.labels.size, winner.group_count)
    note = (
        f"{wording.capital(wording.STRATEGY[winner.strategy])}, the recommended winner, on {images}, "
        f"{wording.count(len(winner.seeds), 'seed')} together. Each row is a true class, each column a predicted one."
    )
    return Section("confusion", confusion_heading(counts, names), [confusion_matrix(counts, names)], note)


def confusion_heading(counts: NDArray[np.int64], classes: Sequence[str]) -> str:
    """Name the class that was most often taken for another one."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(shares, 0)
    row, column = divmod(int(shares.argmax()), shares.shape[1])
    if shares[row, column] == 0:
        return "No class was taken for another"
    share = f"{shares[row, column] * 100:.0f} %"
    return f"Most often confused: {classes[row]}, taken for {classes[column]} in {share} of its images"


def confusion_matrix(counts: NDArray[np.int64], classes: Sequence[str]) -> Picture:
    """Draw the share of each true class (rows) that was predicted as each class (columns), over all seeds together.

    Args:
        counts: (classes, classes), rows are true classes.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = len(classes)
    cell = float(np.clip(430 / size, 14, 46))
    names = [wording.shortened(name, 22) for name in classes]
    with drawing(int(size * cell + 190), int(size * cell + 150)) as (figure, axes):
        for row in range(size):
            for column in range(size):
                share = float(shares[row, column])
                axes.add_patch(
                    Rectangle((column, row), 1, 1, facecolor=style.step(share), edgecolor=style.SURFACE, lw=1.5)
                )
                if size <= NUMBERS_AT_MOST and share >= 0.005:
                    shade = style.SURFACE if share > 0.5 else style.INK
                    axes.text(
                        column + 0.5,
                        row + 0.53,
                        f"{share * 100:.0f}",
                        ha="center",
                        va="center",
                        color=shade,
                        fontsize=min(12, cell * 0.34),
                        weight="bold" if row == column else "normal",
                    )
        axes.set(xlim=(0, size), ylim=(size, 0), aspect="equal")
        small = max(7.5, min(11.5, cell * 0.7))
        axes.set_xticks(np.arange(size) + 0.5, names, rotation=45, ha="right", rotation_mode="anchor", fontsize=small)
        axes.set_yticks(np.arange(size) + 0.5, names, fontsize=small)
        axes.tick_params(labelcolor=style.INK)
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
        axes.set_title("% of each true class (row)", fontsize=11)
        recalls = ", ".join(f"{name} {shares[i, i] * 100:.0f} %" for i, name in enumerate(classes))
        return picture(figure, "confusion", f"Confusion matrix; share of each class that was recognised: {recalls}.")


def recommended_counts(data: StudyData) -> tuple[TestPredictions, NDArray[np.int64]] | None:
    """Return the recommended winner and its confusion counts on test, all seeds together."""
    chosen = data.summary["recommendation"]
    winner = data.winners.get(chosen["strategy"]) if chosen else None
    if winner is None:
        return None
    classes = winner.probabilities.shape[2]
    counts = [confusion(p.argmax(axis=1), winner.labels, classes) for p in winner.probabilities]
    return winner, np.sum(counts, axis=0)
