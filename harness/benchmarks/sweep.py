"""Sweeps in strata of unfreezing depth: the harness runs all trials, the plain loop three of each, taking turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.benchmarks.baseline_loop import PlainLoop
from harness.benchmarks.bound import Bare
from harness.benchmarks.task import (
    DEPTHS,
    EPOCHS,
    HEAD_EPOCHS,
    HEADS,
    NAIVE,
    RECIPES,
    SEED,
    TRIALS,
    config_of,
    searched,
    study_of,
)
from harness.config.load import LoadedStudy
from harness.results.records import TrialRecord
from harness.seeds import derive

MIXES = {
    "uniform": dict.fromkeys(DEPTHS, 12),
    "probe_heavy": {0: 36, 1: 12, 2: 6, 3: 3, 5: 3},
}  # trials of each depth out of 60
PRECISIONS = ("exact", "auto")
Naive = dict[int, list[tuple[float, list[float]]]]  # depth -> seconds and losses of each timed trial


@dataclass(frozen=True)
class Stratum:
    """One depth of one sweep; seconds are of one trial, unless the name says otherwise."""

    recipe: str
    precision: str
    depth: int
    naive: list[float]
    harness: float  # mean, the work that was shared left out
    shared: float  # seconds of the whole stratum that went into shared work
    curves_equal: bool
    reason: str | None  # why frozen work was not shared
    loss_gap: float = 0.0  # largest difference of the last training loss from the plain loop's, relative
    trials: int = 0  # that the harness ran

    @property
    def plain(self) -> float:
        """Seconds of one trial of the plain loop, mean."""
        return statistics.mean(self.naive)

    def row(self) -> dict[str, Any]:
        """As sweep.json shows it."""
        trials = self.trials
        harness = self.harness * trials + self.shared
        return {
            "recipe": self.recipe,
            "precision": self.precision,
            "depth": self.depth,
            "trials": trials,
            "naive_timed": len(self.naive),
            "distinct_views": 1 if self.recipe == "none" else min(8, EPOCHS),
            "naive_s": self.plain * trials,
            "naive_spread": [min(self.naive), max(self.naive)],
            "harness_s": harness,
            "shared_s": self.shared,
            "ratio": self.plain * trials / harness,
            "curves_equal": self.curves_equal,
            "loss_gap": self.loss_gap,
            "cache_reason": self.reason,
        }


@dataclass
class Sweeps:
    """What was measured."""

    strata: list[Stratum]  # of the mixed sweeps
    heads: dict[str, Stratum]  # by recipe: 60 heads over more epochs, in `exact`
    walls: dict[str, float]  # seconds of each sweep's studies
    last_heads: list[TrialRecord]  # of the last sweep of heads, for a second one to compare with

    def of(self, recipe: str, precision: str) -> dict[int, Stratum]:
        """The strata of one sweep by depth."""
        return {s.depth: s for s in self.strata if (s.recipe, s.precision) == (recipe, precision)}

    def mixes(self) -> dict[str, dict[str, dict[str, float]]]:
        """Plain loop over harness: precision -> recipe -> mix -> ratio."""
        return {
            precision: {
                recipe: {mix: ratio(self.of(recipe, precision), counts) for mix, counts in MIXES.items()}
                for recipe in RECIPES
            }
            for precision in PRECISIONS
        }


def measure(
    folder: Path, plain: PlainLoop, mixed: PlainLoop | None, bare: Bare, device: str, say: Callable[[str], None]
) -> Sweeps:
    """Time every stratum of every sweep, and bare passes beside them.

    Args:
        mixed: the plain loop that `auto` is compared with; None: the same as `exact`, in float32.
    """
    sweeps = Sweeps([], {}, {}, [])
    seed = derive(SEED, "search")
    for recipe in RECIPES:
        naive: dict[bool, Naive] = {side: {depth: [] for depth in DEPTHS} for side in (False, True)}
        found: dict[str, dict[int, list[TrialRecord]]] = {}
        for index in range(NAIVE):  # A, then B, then A …
            for depth in DEPTHS:
                config = config_of(recipe, depth, index)
                naive[False][depth].append(plain.train(config, seed))
                naive[True][depth].append(mixed.train(config, seed) if mixed else naive[False][depth][-1])
            bare.turn()
            told = ", ".join(f"{depth}: {naive[False][depth][-1][0]:.1f}" for depth in DEPTHS)
            say(f"{recipe}: plain loop, seconds of trial {index + 1} by depth: {told}")
            if index < len(PRECISIONS):
                precision = PRECISIONS[index]
                found[precision], wall = _sweep(folder, recipe, precision, device)
                sweeps.walls[f"{recipe} {precision}"] = wall
                say(f"{recipe}: harness, {precision}, {sum(TRIALS.values())} trials in {wall:.1f} s")
        for precision, records in found.items():
            plain_side = naive[precision == "auto"]
            sweeps.strata += [_stratum(recipe, precision, d, plain_side[d], records[d]) for d in DEPTHS]
        _heads(folder, recipe, plain, device, seed, sweeps, say)
    return sweeps


def _heads(
    folder: Path, recipe: str, plain: PlainLoop, device: str, seed: int, sweeps: Sweeps, say: Callable[[str], None]
) -> None:
    """Sixty heads, between two trials of the plain loop and a third."""
    turns = [plain.train(config_of(recipe, 0, index, epochs=HEAD_EPOCHS), seed) for index in range(NAIVE - 1)]
    records, wall = _records(study_of(folder, recipe, "exact", HEADS, device, epochs=HEAD_EPOCHS, name="heads"))
    turns.append(plain.train(config_of(recipe, 0, NAIVE - 1, epochs=HEAD_EPOCHS), seed))
    sweeps.heads[recipe], sweeps.last_heads = _stratum(recipe, "exact", 0, turns, records), records
    sweeps.walls[f"{recipe} heads"] = wall
    told = ", ".join(f"{seconds:.1f}" for seconds, _ in turns)
    say(f"{recipe}: {len(records)} heads in {wall:.1f} s; plain loop {told} s a trial")


def _sweep(folder: Path, recipe: str, precision: str, device: str) -> tuple[dict[int, list[TrialRecord]], float]:
    """The records of all strata, by depth, and the seconds of both studies together."""
    by_depth: dict[int, list[TrialRecord]] = {depth: [] for depth in DEPTHS}
    wall = 0.0
    for depths in ((0,), DEPTHS[1:]):
        trials = {depth: TRIALS[depth] for depth in depths}
        records, seconds = _records(study_of(folder, recipe, precision, trials, device))
        wall += seconds
        for record in records:
            by_depth[record.config.unfreeze_depth].append(record)
    return by_depth, wall


def _records(loaded: LoadedStudy) -> tuple[list[TrialRecord], float]:
    """A study's records, each with its share of what no trial's own seconds hold (scan, decoding, plan, Optuna, log,
    MLflow, a worker's start): it is divided evenly."""
    records, seconds = searched(loaded)
    between = (seconds - sum(record.seconds_spent or 0.0 for record in records)) / len(records)
    for record in records:
        record.extra["between"] = between
    return records, seconds


def _stratum(
    recipe: str, precision: str, depth: int, naive: list[tuple[float, list[float]]], records: list[TrialRecord]
) -> Stratum:
    own = {record.config: record for record in records}
    pairs = [
        (losses, [epoch.train_loss for epoch in own[config_of(recipe, depth, index, epochs=len(losses))].epochs])
        for index, (_, losses) in enumerate(naive)
    ]
    spent = [(record.seconds_spent or 0.0) + record.extra["between"] for record in records]
    shared = sum(record.shared_seconds for record in records)
    return Stratum(
        recipe,
        precision,
        depth,
        [seconds for seconds, _ in naive],
        (sum(spent) - shared) / len(records),
        shared,
        curves_equal=all(one == other for one, other in pairs),
        reason=next((r.cache_reason for r in records if r.cache_reason), None),
        loss_gap=max(abs(one[-1] - other[-1]) / abs(one[-1]) for one, other in pairs),
        trials=len(records),
    )


def ratio(strata: dict[int, Stratum], counts: dict[int, int]) -> float:
    """Seconds of the plain loop over the harness's for so many trials of each depth, shared work counted once."""
    naive = sum(n * strata[d].plain for d, n in counts.items())
    ours = sum(n * strata[d].harness for d, n in counts.items()) + sum(strata[d].shared for d in counts)
    return naive / ours
