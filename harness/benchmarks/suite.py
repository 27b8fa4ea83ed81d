"""`make bench` from its first line to `sweep.json`."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from harness.benchmarks import negative_controls, throughput
from harness.benchmarks.baseline_loop import PlainLoop
from harness.benchmarks.bookkeeping import bookkeeping
from harness.benchmarks.bound import Bare, single_trial
from harness.benchmarks.report_size import report_of
from harness.benchmarks.sweep import MIXES, Stratum, measure
from harness.benchmarks.task import (
    BATCH,
    EPOCHS,
    HEAD_EPOCHS,
    HEADS,
    NAIVE,
    RECIPES,
    TRIALS,
    Say,
    config_of,
    draw,
    files_of,
    homes,
    machine,
    study_of,
)
from harness.benchmarks.worker_costs import second_sweep, worker_seconds
from harness.results.names import SEARCH_SPLIT
from harness.study.prepare import prepare

TABLES = Path("reports/benchmarks")


def run(say: Say, device: str = "cpu", out: Path | None = None) -> None:
    """Time everything, print it, write `out` (`sweep.json`, or `sweep-cuda.json` for a GPU)."""
    began, where = time.perf_counter(), torch.device(device)
    out = out or TABLES / ("sweep.json" if where.type == "cpu" else f"sweep-{where.type}.json")
    with TemporaryDirectory() as name, homes(Path(name)):
        folder = Path(name)
        draw(folder / "images")
        prepared = prepare(study_of(folder, "none", "exact", HEADS, device), [device], lambda *a: None)
        files, data = files_of(prepared, folder / "images"), prepared.context.data("resnet18", SEARCH_SPLIT)
        torch.set_num_threads(prepared.context.threads)
        say(f"{machine()}; resnet18 at 64 px, {len(files.train)} training and {len(files.validation)} validation")
        say(f"images, batches of {BATCH}, {EPOCHS} epochs; the plain loop is timed on {NAIVE} trials of each depth")
        workers = PlainLoop.tuned_workers(files, config_of("flips", 0))
        say(f"the plain loop's DataLoader reads fastest with {workers} worker(s)")
        store = f"sqlite:///{folder / 'plain.db'}"
        plain = PlainLoop(files, store, workers, where)
        mixed = PlainLoop(files, store, workers, where, mixed=True) if where.type == "cuda" else None
        # Imports are in this, and on neither side of what follows: workers are forked from now on.
        first, following = worker_seconds(prepared.context, device)
        bare = Bare(data, where)
        sweeps = measure(folder, plain, mixed, bare, device, say)
        again = second_sweep(folder, "flips", "exact", device, sweeps.last_heads)
        bound = {}
        for recipe in RECIPES:
            naive = {depth: stratum.plain for depth, stratum in sweeps.of(recipe, "exact").items()}
            bound[recipe] = {mix: bare.bound(recipe, naive, counts, EPOCHS) for mix, counts in MIXES.items()}
            heads = {0: sweeps.heads[recipe].plain}
            bound[recipe]["head_only_60"] = bare.bound(recipe, heads, HEADS, HEAD_EPOCHS)
        say("sweeps timed; now single trials, the controls, the report")
        raw, ours = single_trial(data, where)
        caught = negative_controls.all_caught(data, config_of("none", 0, 0), folder / "controls", where)
        report = report_of()
        waits = {"to_1000": bookkeeping(folder / "images", 1000), "at_10000": bookkeeping(folder / "images", 200, 9800)}
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
        "overhead_ms_per_trial": waits["to_1000"] * 1000,
        "overhead_ms_at_10000": waits["at_10000"] * 1000,
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
    if where.type == "cuda":
        result["throughput"] = throughput.table(where, say)
    result["seconds"] = time.perf_counter() - began
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    _print(result, say)
    say(f"written to {out}; {result['seconds'] / 60:.1f} min")
    if where.type == "cpu":
        exact = [s for s in (*sweeps.strata, *sweeps.heads.values()) if s.precision == "exact"]
        assert all(s.curves_equal for s in exact), "losses differ from the plain loop's"
    assert all(caught.values()), "a negative control was not caught"


def _heads(stratum: Stratum, bound: float) -> dict[str, Any]:
    row = stratum.row()
    return row | {"epochs": HEAD_EPOCHS, "of_bound": row["ratio"] / bound}


def _print(result: dict[str, Any], say: Say) -> None:
    say("recipe  precision  depth  trials  plain s  harness s  ratio  losses equal")
    for row in result["strata"]:
        say(
            f"{row['recipe']:<7} {row['precision']:<10} {row['depth']:>5}  {row['trials']:>6}  {row['naive_s']:>7.1f}  "
            f"{row['harness_s']:>9.1f}  {row['ratio']:>5.1f}  {row['curves_equal']}"
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
    say(f"one full fine-tuning trial against a raw loop: {single['ratio']:.3f} of its speed")
    say(f"a second sweep needs {result['second_sweep_share']:.1%} of the first one's shared work again")
    say(
        f"a worker's first epoch after {worker['first_epoch_s']:.1f} s, the next trials' {worker['next_trial_s']:.3f} s"
    )
    say(
        f"bookkeeping: {result['overhead_ms_per_trial']:.1f} ms a trial over 1,000, "
        f"{result['overhead_ms_at_10000']:.1f} where 10,000 came before"
    )
    say(
        f"report of 10,000 trials: {report['seconds']:.1f} s, of them {report['figures_seconds']:.1f} s for figures, "
        f"the slowest {report['slowest_figure_seconds']:.2f} s; {report['megabytes']:.2f} MB; "
        f"{report['memory_mb']:.0f} MB of memory"
    )
    say(f"negative controls caught: {result['negative_controls_caught']}")
