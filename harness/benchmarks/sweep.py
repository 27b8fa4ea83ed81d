"""Whole sweeps timed by unfreezing depth: the harness runs all trials, the baseline loop three of each depth.

The two take turns, so that a slow phase of the machine affects both.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.benchmarks.baseline_loop import BaselineLoop
from harness.benchmarks.bound import PassTimer
from harness.benchmarks.task import (
    BASELINE_TRIALS,
    DEPTHS,
    EPOCHS,
    HEAD_EPOCHS,
    HEADS,
    RECIPES,
    SEED,
    TRIALS,
    config_of,
    run_search,
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
Runs = dict[int, list[tuple[float, list[float]]]]  # depth -> seconds and losses of each trial of the baseline loop


@dataclass(frozen=True)
class Stratum:
    """One depth of one sweep. Seconds are those of one trial unless the comment says otherwise."""

    recipe: str
    precision: str
    depth: int
    baseline_each: list[float]  # seconds of each timed trial of the baseline loop
    harness: float  # mean of the harness, without shared work
    shared: float  # seconds of shared work in the whole stratum
    curves_equal: bool  # whether all training losses are equal, bit for bit
    reason: str | None  # why frozen work was not shared
    loss_gap: float = 0.0  # largest relative difference of the last training loss from the baseline loop's
    trials: int = 0  # number that the harness ran

    @property
    def baseline(self) -> float:
        """Mean seconds of one trial of the baseline loop."""
        return statistics.mean(self.baseline_each)

    def row(self) -> dict[str, Any]:
        """Return the stratum's row of sweep.json."""
        trials = self.trials
        harness = self.harness * trials + self.shared
        return {
            "recipe": self.recipe,
            "precision": self.precision,
            "depth": self.depth,
            "trials": trials,
            "naive_timed": len(self.baseline_each),
            "distinct_views": 1 if self.recipe == "none" else min(8, EPOCHS),
            "naive_s": self.baseline * trials,
            "naive_spread": [min(self.baseline_each), max(self.baseline_each)],
            "harness_s": harness,
            "shared_s": self.shared,
            "ratio": self.baseline * trials / harness,
            "curves_equal": self.curves_equal,
            "loss_gap": self.loss_gap,
            "cache_reason": self.reason,
        }


@dataclass
class Sweeps:
    """The measurements of all sweeps."""

    strata: list[Stratum]  # of the mixed sweeps
    heads: dict[str, Stratum]  # recipe -> 60 heads over more epochs, with precision `exact`
    walls: dict[str, float]  # wall-clock seconds of each sweep's studies
    last_heads: list[TrialRecord]  # records of the last sweep of heads, with which a second sweep is compared

    def of(self, recipe: str, precision: str) -> dict[int, Stratum]:
        """Return the strata of one sweep by depth."""
        return {s.depth: s for s in self.strata if (s.recipe, s.precision) == (recipe, precision)}

    def mixes(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return seconds of the baseline loop over those of the harness: precision -> recipe -> mix -> ratio."""
        return {
            precision: {
                recipe: {mix: ratio(self.of(recipe, precision), counts) for mix, counts in MIXES.items()}
                for recipe in RECIPES
            }
            for precision in PRECISIONS
        }


def measure(
    folder: Path,
    baseline: BaselineLoop,
    mixed: BaselineLoop | None,
    passes: PassTimer,
    device: str,
    say: Callable[[str], None],
) -> Sweeps:
    """Time every stratum of every sweep, and the passes of the bound beside them.

    Args:
        mixed: the baseline loop for precision `auto`; None: the same as for `exact`, in float32.
    """
    sweeps = Sweeps([], {}, {}, [])
    seed = derive(SEED, "search")
    for recipe in RECIPES:
        runs: dict[bool, Runs] = {side: {depth: [] for depth in DEPTHS} for side in (False, True)}
        found: dict[str, dict[int, list[TrialRecord]]] = {}
        for index in range(BASELINE_TRIALS):  # baseline, harness, baseline, harness, ...
            for depth in DEPTHS:
                config = config_of(recipe, depth, index)
                runs[False][depth].append(baseline.train(config, seed))
                runs[True][depth].append(mixed.train(config, seed) if mixed else runs[False][depth][-1])
            passes.time_once()
            times = ", ".join(f"{depth}: {runs[False][depth][-1][0]:.1f}" for depth in DEPTHS)
            say(f"{recipe}: baseline loop, seconds of trial {index + 1} by depth: {times}")
            if index < len(PRECISIONS):
                precision = PRECISIONS[index]
                found[precision], wall = _sweep(folder, recipe, precision, device)
                sweeps.walls[f"{recipe} {precision}"] = wall
                say(f"{recipe}: harness, {precision}, {sum(TRIALS.values())} trials in {wall:.1f} s")
        for precision, records in found.items():
            own_runs = runs[precision == "auto"]
            sweeps.strata += [_stratum(recipe, precision, d, own_runs[d], records[d]) for d in DEPTHS]
        _heads(folder, recipe, baseline, device, seed, sweeps, say)
    return sweeps


def _heads(
    folder: Path,
    recipe: str,
    baseline: BaselineLoop,
    device: str,
    seed: int,
    sweeps: Sweeps,
    say: Callable[[str], None],
) -> None:
    """Time sixty heads between the second and the third trial of the baseline loop."""
    turns = [
        baseline.train(config_of(recipe, 0, index, epochs=HEAD_EPOCHS), seed) for index in range(BASELINE_TRIALS - 1)
    ]
    records, wall = _records(study_of(folder, recipe, "exact", HEADS, device, epochs=HEAD_EPOCHS, name="heads"))
    turns.append(baseline.train(config_of(recipe, 0, BASELINE_TRIALS - 1, epochs=HEAD_EPOCHS), seed))
    sweeps.heads[recipe], sweeps.last_heads = _stratum(recipe, "exact", 0, turns, records), records
    sweeps.walls[f"{recipe} heads"] = wall
    times = ", ".join(f"{seconds:.1f}" for seconds, _ in turns)
    say(f"{recipe}: {len(records)} heads in {wall:.1f} s; baseline loop {times} s for a trial")


def _sweep(folder: Path, recipe: str, precision: str, device: str) -> tuple[dict[int, list[TrialRecord]], float]:
    """Run the studies of one sweep; return the records by depth and the seconds of both studies together."""
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
    """Run a study; each record gets an equal share of the time outside trials in `extra["between"]`.

    That time is for scan, decoding, the plan of the cache, Optuna, the log, MLflow and the start of a worker.
    """
    records, seconds = run_search(loaded)
    between = (seconds - sum(record.seconds_spent or 0.0 for record in records)) / len(records)
    for record in records:
        record.extra["between"] = between
    return records, seconds


def _stratum(
    recipe: str, precision: str, depth: int, runs: list[tuple[float, list[float]]], records: list[TrialRecord]
) -> Stratum:
    """Make one stratum from the runs of the baseline loop and the harness's records."""
    own = {record.config: record for record in records}
    pairs = [
        (losses, [epoch.train_loss for epoch in own[config_of(recipe, depth, index, epochs=len(losses))].epochs])
        for index, (_, losses) in enumerate(runs)
    ]
    spent = [(record.seconds_spent or 0.0) + record.extra["between"] for record in records]
    shared = sum(record.shared_seconds for record in records)
    return Stratum(
        recipe,
        precision,
        depth,
        [seconds for seconds, _ in runs],
        (sum(spent) - shared) / len(records),
        shared,
        curves_equal=all(one == other for one, other in pairs),
        reason=next((r.cache_reason for r in records if r.cache_reason), None),
        loss_gap=max(abs(one[-1] - other[-1]) / abs(one[-1]) for one, other in pairs),
        trials=len(records),
    )


def ratio(strata: dict[int, Stratum], counts: dict[int, int]) -> float:
    """Return seconds of the baseline loop over those of the harness for a mix of depths; shared work counts once.

    Args:
        counts: depth -> number of trials.
    """
    baseline = sum(n * strata[d].baseline for d, n in counts.items())
    ours = sum(n * strata[d].harness for d, n in counts.items()) + sum(strata[d].shared for d in counts)
    return baseline / ours
