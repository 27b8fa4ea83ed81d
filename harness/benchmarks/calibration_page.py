"""The page reports/calibration/README.md: what `make calibrate` counted, compared with the goals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path

from scipy.stats import binom

from harness.benchmarks.aa_test import AATest
from harness.benchmarks.calibration import (
    EASY,
    FEW_IMAGES,
    FEW_SEEDS,
    IMAGES,
    LAYOUTS,
    LUCK,
    SEEDS,
    Cell,
    Counted,
    above,
    share,
)

FEW = 5  # seeds; with fewer, the interval may contain the truth more often than 95 %
COVERAGE = (0.93, 0.97)  # goal for the share of intervals that contain the truth
POWER_WITHIN = 0.10  # goal for the loss of power against the z-test
_HEAD = """# Calibration

`make calibrate` simulates confirmations whose true difference is known exactly, judges each with `compare_strategies`
as the report does, and counts the outcomes. A cell of the grid is a layout (four equal classes; eight unequal classes,
the rarest with 1.4 % of the images; groups, some of which favour one side), a number of seeds, a number of test images,
a spread of the seeds ("luck": half a point or two points of accuracy), and a true difference (none, 1 point, which is
the equivalence margin, 2 points or 5 points). Power is the share in which the better side is found, compared with a
z-test that uses the true standard deviation of the difference. Images, groups, seeds and their combinations all have
random effects (`harness/benchmarks/simulation.py`).
"""


def write(folder: Path, counted: Sequence[Counted], aa_tests: Sequence[AATest], machine: str) -> str:
    """Write README.md into `folder`; return its tables as text."""
    counted, few_images = [[c for c in counted if c.cell.has_few_images is few] for few in (False, True)]
    enough = [c for c in counted if c.cell.seeds >= FEW]
    layouts = list(product(LAYOUTS, LUCK))
    by_seeds = {str(n): [c for c in counted if c.cell.seeds == n] for n in SEEDS}
    by_images = {f"{n:,}": [c for c in enough if c.cell.images == n] for n in IMAGES}
    by_layout = {f"{a}, {b}": [c for c in enough if (c.cell.layout, c.cell.luck) == (a, b)] for a, b in layouts}
    parts = [
        f"{len(counted) + len(few_images)} cells, {counted[0].repeats} confirmations each ({machine}). Every count is "
        "in [simulation.json](simulation.json).",
        "## By number of seeds\n\n" + _table("seeds", by_seeds),
        f"## By test images, {FEW} seeds or more\n\n" + _table("images", by_images),
        f"## By layout and luck of the seeds, {FEW} seeds or more\n\n" + _table("layout, luck", by_layout),
        "## Against the goals\n\n" + "\n".join(f"- {line}" for line in verdicts(counted)),
        *([_few_images(few_images)] if few_images else []),
        "## The same configuration on both sides, with real training\n\n" + _aa_table(aa_tests),
    ]
    text = "\n\n".join(parts) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(f"{_HEAD}\n{text}", encoding="utf-8")
    return text


def verdicts(counted: Sequence[Counted]) -> list[str]:
    """Write each goal with what was counted, and the cells that miss it significantly."""
    few, enough = [c for c in counted if c.cell.seeds < FEW], [c for c in counted if c.cell.seeds >= FEW]
    none, margin = _with(counted, "none"), _with(counted, "margin")
    low = [c.cell for c in counted if binom.cdf(c.covered, c.repeats, COVERAGE[0]) < 0.05 / len(counted)]
    high = [c for c in enough if c.covered / c.repeats > COVERAGE[1]]
    lost = [(c.better_if_known - c.better) / c.repeats for c in (*_with(enough, "small"), *_with(enough, "large"))]
    lost_few = [(c.better_if_known - c.better) / c.repeats for c in (*_with(few, "small"), *_with(few, "large"))]
    return [
        _kept("false winners if there is no difference, at most 5 %", none, lambda c: c.false_winners),
        _kept("`equal` at the margin, at most 5 %", margin, lambda c: c.equal),
        f"coverage of the 95 % interval, 93 to 97 %: {share(enough, lambda c: c.covered):.1%} with five seeds or more "
        f"({_cells(low)} below 93 % beyond chance; {len(high)} of {len(enough)} cells above 97 %), "
        f"{share(few, lambda c: c.covered):.1%} with fewer, for which more is allowed",
        f"power within 10 points of the z-test with the true spread: {sum(p <= POWER_WITHIN for p in lost)} of "
        f"{len(lost)} cells with five seeds or more ({_mean(lost) * 100:.0f} points less on average), "
        f"{sum(p <= POWER_WITHIN for p in lost_few)} of {len(lost_few)} with fewer ({_mean(lost_few) * 100:.0f} less)",
    ]


def _kept(goal: str, cells: Sequence[Counted], counts: Callable[[Counted], int]) -> str:
    beyond = above(cells, counts, 0.05)
    worst = max(cells, key=lambda c: counts(c) / c.repeats)
    return (
        f"{goal}: {share(cells, counts):.1%} over {len(cells)} cells; worst cell {counts(worst) / worst.repeats:.1%} "
        f"({_name(worst.cell)}); {_cells(beyond)} above 5 % beyond chance"
    )


def _table(first: str, rows: Mapping[str, Sequence[Counted]]) -> str:
    lines = [
        f"| {first} | false winner | `equal` at the margin | covers the truth | power, 2 points (if known) | "
        "power, 5 points (if known) |",
        "|---|---|---|---|---|---|",
    ]
    for name, cells in rows.items():
        none, margin, small, large = (_with(cells, truth) for truth in ("none", "margin", "small", "large"))
        lines.append(
            f"| {name} | {share(none, lambda c: c.false_winners):.1%} | {share(margin, lambda c: c.equal):.1%} | "
            f"{share(cells, lambda c: c.covered):.1%} | {_power(small)} | {_power(large)} |"
        )
    return "\n".join(lines)


def _few_images(counted: Sequence[Counted]) -> str:
    """Write the part about few test images and easy tasks."""
    none, apart = _with(counted, "none"), _with(counted, "three margins")
    low = [c.cell for c in counted if binom.cdf(c.covered, c.repeats, COVERAGE[0]) < 0.05 / len(counted)]
    rows = {f"{n} images": [c for c in counted if c.cell.images == n] for n in FEW_IMAGES}
    rows |= {f"{n} seeds": [c for c in counted if c.cell.seeds == n] for n in FEW_SEEDS}
    rows |= {name: [c for c in counted if c.cell.layout == name] for name in EASY}
    lines = [
        "## Few test images, easy tasks",
        "",
        "Both sides are right on 90 to 99 % of the images, so that most images are answered alike. Here a narrow "
        "interval comes easily, and with it a false `equal`. The true difference is none, or three times the "
        "equivalence margin. An interval that spans more than 50 points is not written.",
        "",
        "| | false winner | `equal` at three margins | covers the truth | half-width, points | not written |",
        "|---|---|---|---|---|---|",
    ]
    for name, cells in rows.items():
        false, equal = _with(cells, "none"), _with(cells, "three margins")
        lines.append(
            f"| {name} | {share(false, lambda c: c.false_winners):.1%} | {share(equal, lambda c: c.equal):.1%} | "
            f"{share(cells, lambda c: c.covered):.1%} | {_mean([c.half_width for c in cells]) * 100:.0f} | "
            f"{share(cells, lambda c: c.unsaid):.0%} |"
        )
    goals = [
        _kept("false winners if there is no difference, at most 5 %", none, lambda c: c.false_winners),
        _kept("`equal` at three times the margin, at most 5 %", apart, lambda c: c.equal),
        f"coverage of the 95 % interval, at least 93 %: {share(counted, lambda c: c.covered):.1%} "
        f"({_cells(low)} below 93 % beyond chance)",
    ]
    return "\n".join([*lines, "", *(f"- {goal}" for goal in goals)])


def _power(cells: Sequence[Counted]) -> str:
    return f"{share(cells, lambda c: c.better):.0%} ({share(cells, lambda c: c.better_if_known):.0%})"


def _aa_table(found: Sequence[AATest]) -> str:
    lines = ["| seeds a side | repeats | winners, all false | interval holds zero |", "|---|---|---|---|"]
    for one in found:
        winners = f"{one.winners} ({one.winners / one.repeats:.1%})"
        lines.append(f"| {one.seeds} | {one.repeats} | {winners} | {one.covered / one.repeats:.1%} |")
    return (
        "One configuration (a head on frozen features, rendered cells) trained on disjoint seeds for both sides; a\n"
        "seed moves split, initialisation, order and views. Several test splits; counts: [same.json](same.json).\n\n"
        + "\n".join(lines)
    )


def _with(cells: Iterable[Counted], truth: str) -> list[Counted]:
    return [one for one in cells if one.cell.truth == truth]


def _name(cell: Cell) -> str:
    return f"{cell.layout}, {cell.seeds} seeds, {cell.images:,} images, {cell.luck} luck"


def _cells(cells: Sequence[Cell]) -> str:
    return "no cell" if not cells else f"{len(cells)} cells ({'; '.join(map(_name, cells[:3]))})"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
