"""The section on the winners' probabilities on the test split: are they as often right as they say?

The calibration error is the mean gap between confidence and share of right answers, over bins of equal width (Guo et
al. 2017); its interval counts seeds and test images as that of the verdict does.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.ticker import PercentFormatter

from harness.analysis import wording
from harness.analysis.statistics import Estimate, estimate
from harness.analysis.study_data import StudyData
from harness.analysis.test_predictions import TestPredictions
from harness.report import style
from harness.report.section import Section, Table
from harness.report.style import Picture, drawing, picture
from harness.results.metrics import CALIBRATION_BINS, calibration_bins

FEWEST = 10  # images in a bin, all seeds together; emptier bins are not drawn
METRIC = "calibration_error"


def reliability_section(data: StudyData) -> Section | None:
    """Show the calibration of every winner; None if no winner was scored with two seeds or more."""
    winners = {name: winner for name, winner in data.winners.items() if len(winner.seeds) > 1}
    if not winners:
        return None
    errors = {name: estimate(w.probabilities, w.labels, w.groups, METRIC) for name, w in winners.items()}
    note = (
        "Test images by the probability of the predicted class, all seeds together. On the diagonal a winner is right "
        f"as often as it says; below it, it is too sure. Bins of fewer than {FEWEST} answers are left out. Rescaling "
        "the probabilities (temperature scaling) changes them without new training."
    )
    rows = [
        [
            wording.capital(wording.STRATEGY[name]),
            wording.difference(found.mean, METRIC),
            wording.interval(found.interval(), METRIC),
            wording.difference(gap(winners[name]), METRIC, signed=True),
        ]
        for name, found in errors.items()
    ]
    columns = [
        ("strategy", False),
        ("calibration error", True),
        ("95 % interval", True),
        ("confidence minus right", True),
    ]
    return Section(
        "reliability",
        reliability_heading(winners, errors),
        [reliability(winners)],
        note,
        list(winners),
        Table("Calibration of the winners on the test split", columns, rows),
    )


def gap(winner: TestPredictions) -> float:
    """Return the mean confidence minus the share of right answers: positive is too sure, negative too cautious."""
    confidence = winner.probabilities.max(axis=2).mean()
    right = (winner.probabilities.argmax(axis=2) == winner.labels).mean()
    return float(confidence - right)


def reliability_heading(winners: Mapping[str, TestPredictions], errors: Mapping[str, Estimate]) -> str:
    """Say which winner is best calibrated, and whether the probabilities are too high or too low."""
    parts = []
    for name, found in sorted(errors.items(), key=lambda item: item[1].mean):
        way = gap(winners[name])
        manner = "about right" if abs(way) < 0.01 else "too sure" if way > 0 else "too cautious"
        parts.append(
            f"{wording.STRATEGY[name]} is {manner} (calibration error {wording.difference(found.mean, METRIC)})"
        )
    return wording.capital(f"{wording.listed(parts)}")


def reliability(winners: Mapping[str, TestPredictions]) -> Picture:
    """Draw the share of right answers against the mean confidence in each bin, for each winner."""
    described = []
    with drawing(420, 400) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=style.MUTED, lw=1, zorder=1)
        for name, winner in winners.items():
            probabilities = winner.probabilities.reshape(-1, winner.probabilities.shape[2])
            bins, apart = calibration_bins(probabilities, np.tile(winner.labels, len(winner.seeds)))
            confidence = probabilities.max(axis=1).astype(np.float64)
            counts = np.bincount(bins, minlength=CALIBRATION_BINS)
            kept = counts >= FEWEST
            x = np.bincount(bins, weights=confidence, minlength=CALIBRATION_BINS)[kept] / counts[kept]
            y = np.bincount(bins, weights=confidence + apart, minlength=CALIBRATION_BINS)[kept] / counts[kept]
            colour = style.STRATEGY[name]
            axes.plot(x, y, color=colour, lw=2, zorder=3)
            axes.scatter(x, y, s=14 + 90 * counts[kept] / counts.max(), color=colour, zorder=4, edgecolor=style.SURFACE)
            described.append(f"{wording.STRATEGY[name]}: {wording.count(int(kept.sum()), 'bin')}")
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="confidence", ylabel="share of right answers")
        axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        said = f"Share of right answers against confidence on the test split. {wording.capital('; '.join(described))}."
        return picture(figure, "reliability", said)
