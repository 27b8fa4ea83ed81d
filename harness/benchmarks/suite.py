"""The whole of `make bench`: everything is timed, printed and written to reports/benchmarks/sweep.json."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from harness.benchmarks import negative_controls, throughput
from harness.benchmarks.baseline_loop import BaselineLoop
from harness.benchmarks.bookkeeping import bookkeeping
from harness.benchmarks.bound import PassTimer, single_trial
from harness.benchmarks.report_size import measure_report
from harness.benchmarks.sweep import MIXES, Stratum, measure
from harness.benchmarks.task import (
    BASELINE_TRIALS,
    BATCH,
    EPOCHS,
    HEAD_EPOCHS,
    HEADS,
    RECIPES,
    TRIALS,
    Say,
    config_of,
    files_of,
    machine,
    study_of,
    temporary_home,
    write_images,
)
from harness.benchmarks.worker_costs import second_sweep, worker_seconds
from harness.results.names import SEARCH_SPLIT
from harness.study.prepare import prepare
from harness.tracking.address import sqlite_address

TABLES = Path("reports/benchmarks")


def run(say: Say, device: str = "cpu", out: Path | None = None) -> None:
    """Time everything, print it and write `out` (by default `sweep.json`, for a GPU `sweep-cuda.json`).

    Raises:
        AssertionError: on a CPU the losses differ from the baseline loop's, or a negative control was not caught.
    """
    began, torch_device = time.perf_counter(), torch.device(device)
    out = out or TABLES / ("sweep.json" if torch_device.type == "cpu" else f"sweep-{torch_device.type}.json")
    with TemporaryDirectory() as name, temporary_home(Path(name)):
        folder = Path(name)
        write_images(folder / "images")
        prepared = prepare(study_of(folder, "none", "exact", HEADS, device), [device], lambda *a: None)
        files, data = files_of(prepared, folder / "images"), prepared.context.data("resnet18", SEARCH_SPLIT)
        torch.set_num_threads(prepared.context.threads)
        say(f"{machine()}; resnet18 at 64 px, {len(files.train)} training and {len(files.validation)} validation")
        say(f"images, batches of {BATCH}, {EPOCHS} epochs; the baseline loop is timed on {BASELINE_TRIALS} trials")
        say("of each depth")
        workers = BaselineLoop.tuned_workers(files, config_of("flips", 0))
        say(f"the baseline loop's DataLoader reads fastest with {workers} worker(s)")
        store = sqlite_address(folder / "baseline.db")
        baseline = BaselineLoop(files, store, workers, torch_device)
        mixed = BaselineLoop(files, store, workers, torch_device, mixed=True) if torch_device.type == "cuda" else None
        # This includes imports. What follows includes none on either side, since workers are forked from now on.
        first, following = worker_seconds(prepared.context, device)
        passes = PassTimer(data, torch_device)
        sweeps = measure(folder, baseline, mixed, passes, device, say)
        again = second_sweep(folder, "flips", "exact", device, sweeps.last_heads)
        bound = {}
        for recipe in RECIPES:
            seconds = {depth: stratum.baseline for depth, stratum in sweeps.of(recipe, "exact").items()}
            bound[recipe] = {mix: passes.bound(recipe, seconds, counts, EPOCHS) for mix, counts in MIXES.items()}
            heads = {0: sweeps.heads[recipe].baseline}
            bound[recipe]["head_only_60"] = passes.bound(recipe, heads, HEADS, HEAD_EPOCHS)
        say("sweeps timed; next: single trials, the negative controls, the report")
        raw, ours = single_trial(data, torch_device)
        caught = negative_controls.all_caught(data, config_of("none", 0, 0), folder / "controls", torch_device)
        report = measure_report()
        waiting = {
            "to_1000": bookkeeping(folder / "images", 1000),
            "at_10000": bookkeeping(folder / "images", 200, 9800),
        }
    result: dict[str, Any] = {
        "machine": machine(),
        "trials": sum(TRIALS.values()),
        "epochs": EPOCHS,
        "images": {"train": len(files.train), "validation": len(files.validation)},
        "batch_size": BATCH,
        "strata": [stratum.row() for stratum in sweeps.strata],
        "mixes": sweeps.mixes(),
        "bound": bound,
        "head_only_60": {recipe: _heads(row, bound[recipe]["head_only_60"]) for recipe, row in sweeps.heads.items()},
        "sweep_wall_s": sweeps.walls,
        "negative_controls_caught": caught,
        "overhead_ms_per_trial": waiting["to_1000"] * 1000,
        "overhead_ms_at_10000": waiting["at_10000"] * 1000,
        "second_sweep_share": again,
        "single_full_trial": {
            "raw_s": raw,
            "harness_s": ours,
            "ratio": statistics.median(raw) / statistics.median(ours),
        },
        "worker": {"first_epoch_s": first, "next_trial_s": following},
        "report_10k_s": report["seconds"],
        "report_10k": report,
    }
    if torch_device.type == "cuda":
        result["throughput"] = throughput.table(torch_device, say)
    result["seconds"] = time.perf_counter() - began
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    _print(result, say)
    say(f"written to {out}; {result['seconds'] / 60:.1f} min")
    if torch_device.type == "cpu":
        exact = [s for s in (*sweeps.strata, *sweeps.heads.values()) if s.precision == "exact"]
        assert all(s.curves_equal for s in exact), "losses differ from the baseline loop's"
    assert all(caught.values()), "a negative control was not caught"


def _heads(stratum: Stratum, bound: float) -> dict[str, Any]:
    """Return the row of sixty heads, with its share of the bound."""
    row = stratum.row()
    return row | {"epochs": HEAD_EPOCHS, "of_bound": row["ratio"] / bound}


def _print(result: dict[str, Any], say: Say) -> None:
    """Print the result as text."""
    say("recipe  precision  depth  trials  baseline s  harness s  ratio  losses equal")
    for row in result["strata"]:
        say(
            f"{row['recipe']:<7} {row['precision']:<10} {row['depth']:>5}  {row['trials']:>6}  "
            f"{row['naive_s']:>10.1f}  {row['harness_s']:>9.1f}  {row['ratio']:>5.1f}  {row['curves_equal']}"
        )
    for precision, recipes in result["mixes"].items():
        for recipe, mixes in recipes.items():
            for mix, ratio in mixes.items():
                bound = result["bound"][recipe][mix]
                share = f", {ratio / bound:.0%} of the bound ({bound:.1f})" if precision == "exact" else ""
                say(f"{precision}, {recipe}, {mix}: {ratio:.2f} times{share}")
    for recipe, row in result["head_only_60"].items():
        say(f"60 heads, {recipe}, {row['epochs']} epochs: {row['ratio']:.0f} times, {row['of_bound']:.0%} of the bound")
    single, worker, report = result["single_full_trial"], result["worker"], result["report_10k"]
    say(f"one full fine-tuning trial runs at {single['ratio']:.3f} of the speed of a raw loop")
    say(f"a second sweep needs {result['second_sweep_share']:.1%} of the first one's shared work again")
    say(
        f"a worker ends its first epoch after {worker['first_epoch_s']:.1f} s, that of its next trials after "
        f"{worker['next_trial_s']:.3f} s"
    )
    say(
        f"bookkeeping: {result['overhead_ms_per_trial']:.1f} ms for each of 1,000 trials, "
        f"{result['overhead_ms_at_10000']:.1f} ms after 10,000 trials"
    )
    say(
        f"report of 10,000 trials: {report['seconds']:.1f} s, of them {report['figures_seconds']:.1f} s for figures, "
        f"the slowest {report['slowest_figure_seconds']:.2f} s; {report['megabytes']:.2f} MB; "
        f"{report['memory_mb']:.0f} MB of memory"
    )
    say(f"negative controls caught: {result['negative_controls_caught']}")
