"""`make calibrate`: how often the verdict is wrong in simulations, where the truth is known.

Confirmations are drawn from the populations of a grid (`simulation.py`) and judged as the report judges them. Counted
are false winners, `equal` at the margin, intervals that contain the truth, and the power, compared with a z-test that
uses the true standard deviation of the difference. A second part (`aa_test.py`) trains one configuration on both sides.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import binom

from harness.analysis import wording
from harness.analysis.statistics import compare_strategies
from harness.benchmarks.simulation import Population, draw

if TYPE_CHECKING:
    from harness.benchmarks.task import Say  # imports torch, which the worker processes below do not need

REPEATS = 500
SEEDS = (2, 3, 5, 10)
IMAGES = (100, 300, 1000, 5000)
MARGIN = 0.01
TRUTHS = {"none": 0.0, "margin": MARGIN, "small": 0.02, "large": 0.05, "three margins": 3 * MARGIN}
LUCK = {"small": 0.02, "large": 0.08}  # effect of seed and side: half a point and two points of accuracy
FOLDER = Path("reports/calibration")

_EVEN = Population(shares=(1, 1, 1, 1), ease=(-0.5, -0.2, 0.2, 0.5), seed=0.0)
_UNEVEN = dataclasses.replace(
    _EVEN, shares=tuple(0.62**k for k in range(8)), ease=(0.5, 0.4, 0.2, 0.1, 0.0, -0.2, -0.4, -0.6)
)
LAYOUTS = {
    "balanced": _EVEN,
    "unbalanced": _UNEVEN,  # eight classes, the rarest 1.4 % of the images
    "grouped": dataclasses.replace(_EVEN, group=0.4, group_by_side=0.2, images_a_group=50),  # 10 groups or more
}


# Few test images, and tasks that are easy for both sides, so that most images are answered alike. In the rare class,
# one image in eighty and at least one, both sides are worse.
FEW_IMAGES = (6, 9, 15, 30, 60)
FEW_SEEDS = (2, 3, 5)
EASY = {
    "easy": dataclasses.replace(_EVEN, recall=0.9),
    "very easy": dataclasses.replace(_EVEN, recall=0.965),
    "two classes, very easy": dataclasses.replace(_EVEN, shares=(1, 1), ease=(0.2, -0.2), recall=0.965),
    "a rare class, easy": dataclasses.replace(_EVEN, shares=(40, 39, 1), ease=(0.3, 0.3, -0.6), recall=0.93),
    "grouped, easy": dataclasses.replace(LAYOUTS["grouped"], images_a_group=3, recall=0.93),
}


@dataclass(frozen=True)
class Cell:
    """One point of the grid."""

    layout: str
    seeds: int
    images: int
    luck: str
    truth: str

    @property
    def population(self) -> Population:
        """The distribution from which the cell's confirmations are drawn."""
        return dataclasses.replace((LAYOUTS | EASY)[self.layout], seed=LUCK[self.luck])

    @property
    def has_few_images(self) -> bool:
        """Whether the cell belongs to the grid of few images and easy tasks."""
        return self.layout in EASY


@dataclass(frozen=True)
class Counted:
    """The outcomes of a cell, counted over `repeats` confirmations. Stored in simulation.json."""

    cell: Cell
    repeats: int
    better: int
    worse: int
    equal: int
    covered: int  # intervals that contain the true difference
    better_if_known: int  # `better` by a z-test with the true standard deviation
    half_width: float  # mean of the intervals' half-widths
    unsaid: int  # intervals that are too wide to be written
    deviation: float  # the true standard deviation of the difference, estimated from all repeats

    @property
    def false_winners(self) -> int:
        """Confirmations with a winner although there is none, or with the wrong winner."""
        return self.worse + (self.better if self.cell.truth == "none" else 0)


GRID = [Cell(*point) for point in product(LAYOUTS, SEEDS, IMAGES, LUCK, ("none", "margin", "small", "large"))]
FEW_GRID = [Cell(*point) for point in product(EASY, FEW_SEEDS, FEW_IMAGES, ("small",), ("none", "three margins"))]


def count(cell: Cell, repeats: int, seed: int) -> Counted:
    """Draw the confirmations of a cell, judge each and count the outcomes."""
    rng = np.random.default_rng(seed)
    truth, outcomes, differences, halves, covered, unsaid = TRUTHS[cell.truth], [], [], [], 0, 0
    for _ in range(repeats):
        drawn = draw(cell.population, cell.seeds, cell.images, truth, rng)
        found = compare_strategies(drawn.a, drawn.b, drawn.labels, drawn.groups, equivalence=MARGIN)
        low, high = found.ci95
        outcomes.append(found.outcome)
        differences.append(found.difference)
        halves.append((high - low) / 2)
        covered += low <= truth <= high
        unsaid += wording.says_nothing(found.ci95, "balanced_accuracy")
    deviation = float(np.std(differences, ddof=1))
    return Counted(
        cell,
        repeats,
        outcomes.count("better"),
        outcomes.count("worse"),
        outcomes.count("equal"),
        covered,
        int((np.array(differences) > 1.96 * deviation).sum()),
        float(np.mean(halves)),
        unsaid,
        deviation,
    )


def run(
    say: Say, folder: Path = FOLDER, repeats: int = REPEATS, cells: Sequence[Cell] = (*GRID, *FEW_GRID)
) -> list[Counted]:
    """Count every cell on all cores; write simulation.json into `folder`."""
    began = time.perf_counter()
    say(f"{len(cells)} cells of {repeats} simulated confirmations each")
    found = []
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        tasks = [pool.submit(count, cell, repeats, seed) for seed, cell in enumerate(cells)]
        for number, task in enumerate(tasks, 1):
            found.append(task.result())
            if number % 48 == 0:
                say(f"{number} of {len(cells)} cells, {time.perf_counter() - began:.0f} s")
    folder.mkdir(parents=True, exist_ok=True)
    rows = [dataclasses.asdict(one) for one in found]
    text = "[\n" + ",\n".join(json.dumps({**row.pop("cell"), **row}) for row in rows) + "\n]\n"
    (folder / "simulation.json").write_text(text)
    say(f"simulated in {time.perf_counter() - began:.0f} s")
    return found


def share(cells: Iterable[Counted], counts: Callable[[Counted], int]) -> float:
    """Return the share of all confirmations of these cells that `counts` counts; NaN without cells."""
    cells = list(cells)
    repeats = sum(cell.repeats for cell in cells)
    return sum(counts(cell) for cell in cells) / repeats if repeats else float("nan")


def above(cells: Sequence[Counted], counts: Callable[[Counted], int], goal: float) -> list[Cell]:
    """Return the cells whose share is significantly above `goal`: binomial tests at 5 %, Bonferroni over the cells."""
    return [cell.cell for cell in cells if binom.sf(counts(cell) - 1, cell.repeats, goal) < 0.05 / max(len(cells), 1)]
