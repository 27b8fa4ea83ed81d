"""`make bench-search`: what pruning saves and how much worse its winner is, compared with other ways of stopping.

All configurations of two mixes of depths are trained to the end once, with shared work. The epochs of a trial do not
depend on whether later epochs are trained, so every way of stopping is then replayed on the same curves, in many orders
of the trials:

- `exhaustive`: every trial to its end;
- `median`: the harness's pruner, within each strategy;
- `percentile 25`, `halving`: Optuna's more aggressive pruners instead of it;
- `one epoch`: every configuration is trained for one epoch with a schedule of one epoch, and the best one to its end.

The baseline loop is timed on the same pixels, in turns with the harness. A speed-up is its seconds for all trials and
epochs (from the median turn of each depth) over the seconds of a way of stopping, which include all shared work.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import optuna
import torch
from PIL import Image

from harness.benchmarks.baseline_loop import BaselineLoop, Files
from harness.benchmarks.sweep import MIXES
from harness.benchmarks.task import BASELINE_TRIALS, SEED, Say, machine, run_search, temporary_home
from harness.config.load import LoadedStudy, Overrides, load_study, parse
from harness.config.space import tried
from harness.config.trial import Strategy, TrialConfig
from harness.errors import ConfigError
from harness.results.metrics import direction
from harness.results.names import SEARCH_SPLIT
from harness.results.records import TrialJob, TrialRecord
from harness.search.strategy_search import pruner
from harness.seeds import derive
from harness.study.prepare import Prepared, prepare
from harness.tracking.address import sqlite_address
from harness.training.trial import run_trial

LIMIT = 750  # largest number of training and validation images
BATCH = 32
SEEDS = 5  # trainings of the exhaustive winner, which give the spread of one seed
ORDERS = 200  # random draws and orders of the trials
POOL = {depth: max(counts[depth] for counts in MIXES.values()) for depth in MIXES["uniform"]}


@dataclass(frozen=True)
class Curve:
    """The curve of one trial trained to its end, and the result of its configuration after a single epoch."""

    depth: int
    config: dict[str, Any]
    scores: list[float]  # validation score of each epoch
    seconds: list[float]  # of each epoch, without shared work
    overhead: float  # seconds outside its epochs: its share of the study's other time
    one_epoch: float  # validation score after one epoch with a schedule of one epoch
    one_epoch_seconds: float

    @property
    def final(self) -> float:
        """The trial's score: that of its best epoch."""
        return max(self.scores)


@dataclass(frozen=True)
class Outcome:
    """The result of a way of stopping in one order of the trials."""

    seconds: float  # without the shared work
    epochs: int
    winner: int  # index of the best curve


def exhaustive(curves: Sequence[Curve], order: Sequence[int], epochs: int) -> Outcome:
    """Train every trial to its end."""
    seconds = sum(sum(curves[i].seconds) + curves[i].overhead for i in order)
    return Outcome(seconds, len(order) * epochs, max(order, key=lambda i: curves[i].final))


def pruned(curves: Sequence[Curve], order: Sequence[int], epochs: int, stopper: optuna.pruners.BasePruner) -> Outcome:
    """Stop trials by a pruner within each strategy; the first trial of each runs to its end."""
    studies = {side: optuna.create_study(direction="maximize", pruner=stopper) for side in (False, True)}
    seconds, trained, best = 0.0, 0, -1
    seen = {False: 0, True: 0}
    for index in order:
        curve = curves[index]
        side = curve.depth > 0
        trial = studies[side].ask()
        stopped = False
        seconds += curve.overhead
        for epoch, (score, took) in enumerate(zip(curve.scores, curve.seconds, strict=True), start=1):
            trial.report(score, epoch)
            seconds, trained = seconds + took, trained + 1
            if seen[side] and epoch < epochs and trial.should_prune():
                stopped = True
                break
        seen[side] += 1
        state = optuna.trial.TrialState.PRUNED if stopped else None
        studies[side].tell(trial, None if stopped else curve.final, state=state)
        if not stopped and (best < 0 or curve.final > curves[best].final):
            best = index
    return Outcome(seconds, trained, best)


def one_epoch(curves: Sequence[Curve], order: Sequence[int], epochs: int) -> Outcome:
    """Train every configuration for one epoch, and the best one to its end."""
    best = max(order, key=lambda i: curves[i].one_epoch)
    seconds = sum(curves[i].one_epoch_seconds for i in order) + sum(curves[best].seconds) + curves[best].overhead
    return Outcome(seconds, len(order) + epochs, best)


def median(curves: Sequence[Curve], order: Sequence[int], epochs: int) -> Outcome:
    """Stop trials by the harness's pruner."""
    return pruned(curves, order, epochs, pruner(epochs))


def percentile(curves: Sequence[Curve], order: Sequence[int], epochs: int) -> Outcome:
    """Continue only the best quarter of the trials at each epoch."""
    stopper = optuna.pruners.PercentilePruner(25.0, n_startup_trials=5, n_warmup_steps=1, n_min_trials=4)
    return pruned(curves, order, epochs, stopper)


def halving(curves: Sequence[Curve], order: Sequence[int], epochs: int) -> Outcome:
    """Stop trials by asynchronous successive halving: a third of the trials at each rung continues, from epoch one."""
    return pruned(curves, order, epochs, optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3))


WAYS: Mapping[str, Callable[[Sequence[Curve], Sequence[int], int], Outcome]] = {
    "exhaustive": exhaustive,
    "median": median,
    "percentile 25": percentile,
    "halving": halving,
    "one epoch": one_epoch,
}


def replay(
    curves: Sequence[Curve],
    counts: Mapping[int, int],
    epochs: int,
    shared: float,
    baseline: Mapping[int, float],
    spread: float,
    orders: int = ORDERS,
) -> dict[str, dict[str, float]]:
    """Replay each way of stopping over many random draws and orders of a mix.

    Args:
        counts: depth -> number of trials, which are drawn from the curves of that depth.
        shared: seconds of shared work, added to each way.
        baseline: depth -> seconds of one trial of the baseline loop.
        spread: standard deviation of the winner's score over seeds.

    Returns:
        For each way: `epochs_share`, the share of all epochs that was trained; `seconds`; `speed_up` over the baseline
        loop; `loss`, the mean score by which the winner is worse than the exhaustive one, and its 95th percentile
        `loss_p95`; `within_spread`, the share of orders in which the loss is at most `spread`.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rng = np.random.default_rng(SEED)
    by_depth = {depth: [i for i, curve in enumerate(curves) if curve.depth == depth] for depth in counts}
    baseline_seconds = sum(n * baseline[depth] for depth, n in counts.items())
    outcomes: dict[str, list[tuple[Outcome, float]]] = {way: [] for way in WAYS}
    for _ in range(orders):
        drawn = np.concatenate([rng.choice(by_depth[depth], n, replace=False) for depth, n in counts.items()])
        order = rng.permutation(drawn).tolist()
        best = max(curves[i].final for i in order)
        for way, stop in WAYS.items():
            outcome = stop(curves, order, epochs)
            outcomes[way].append((outcome, best - curves[outcome.winner].final))
    results = {}
    for way, found in outcomes.items():
        losses = np.array([loss for _, loss in found])
        seconds = statistics.mean(outcome.seconds for outcome, _ in found) + shared
        results[way] = {
            "epochs_share": statistics.mean(o.epochs for o, _ in found) / (sum(counts.values()) * epochs),
            "seconds": seconds,
            "speed_up": baseline_seconds / seconds,
            "loss": float(losses.mean()),
            "loss_p95": float(np.quantile(losses, 0.95)),
            "within_spread": float((losses <= spread).mean()),
        }
    return results


def run(say: Say, name: str, data: str | None, out: Path = Path("reports/benchmarks/search.json")) -> None:
    """Train the pool of configurations on a study's images, replay, print and write `out`.

    Args:
        name: of the study file.
        data: path of the images, if the study file names none.

    Raises:
        ConfigError: the study takes all channels of its images.
    """
    began = time.perf_counter()
    loaded = _pool(load_study(name, Overrides(data=data)))
    if loaded.study.data.channels == "all":
        raise ConfigError(
            f"the benchmark's baseline loop reads RGB files, but the study {name} sets data.channels: all; choose "
            "three channels, or another study."
        )
    with TemporaryDirectory() as folder, temporary_home(Path(folder)):
        prepared = prepare(loaded, ["cpu"], lambda *a: None)
        context = prepared.context
        torch.set_num_threads(context.threads)
        files = _files(prepared, Path(folder) / "images")
        loader = BaselineLoop.tuned_workers(files, tried(loaded.study, "feature_extraction")[0])
        baseline = BaselineLoop(files, sqlite_address(Path(folder) / "baseline.db"), loader)
        say(f"{machine()}; {prepared.study.data.name or name}, {len(files.train)} training and")
        say(
            f"{len(files.validation)} validation images, {sum(POOL.values())} configurations, "
            f"{loaded.study.epochs} epochs"
        )
        turns: dict[int, list[float]] = {depth: [] for depth in POOL}
        first = {depth: next(c for c in _configs(loaded) if c.unfreeze_depth == depth) for depth in POOL}

        def turn() -> None:
            for depth, config in first.items():
                turns[depth].append(baseline.train(config, derive(SEED, "search"))[0])
            say(
                "baseline loop, seconds of a trial by depth: "
                + ", ".join(f"{d}: {s[-1]:.1f}" for d, s in turns.items())
            )

        turn()
        records, seconds = run_search(loaded)
        say(f"harness: {len(records)} trials to their end in {seconds:.0f} s")
        turn()
        short, _ = run_search(dataclasses.replace(loaded, name=f"{loaded.name}-1", study=_epochs(loaded, 1)))
        say("each configuration trained for one epoch")
        for _ in range(BASELINE_TRIALS - 2):
            turn()
        curves = _curves(records, seconds, short, loaded.study.objective)
        winner = max(records, key=lambda record: record.score or 0.0)
        again = _seeds(prepared, winner)
    shared = sum(record.shared_seconds for record in records)
    medians = {depth: statistics.median(seconds_each) for depth, seconds_each in turns.items()}
    spread = statistics.stdev(again)
    result: dict[str, Any] = {
        "machine": machine(),
        "data": prepared.study.data.name or name,
        "rendered": bool(prepared.dataset.rendered),
        "images": {"train": len(files.train), "validation": len(files.validation)},
        "epochs": loaded.study.epochs,
        "objective": loaded.study.objective,
        "pool": POOL,
        "orders": ORDERS,
        "plain_s": medians,
        "plain_turns_s": turns,
        "shared_s": shared,
        "winner": winner.config.to_json(),
        "winner_over_seeds": again,
        "spread": spread,
        "mixes": {
            mix: replay(curves, counts, loaded.study.epochs, shared, medians, spread) for mix, counts in MIXES.items()
        },
        "curves": [dataclasses.asdict(curve) for curve in curves],
        "seconds": time.perf_counter() - began,
    }
    _print(result, say)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    say(f"written to {out}; {result['seconds'] / 60:.1f} min")


def _print(result: dict[str, Any], say: Say) -> None:
    """Print the result as text."""
    say(f"the winner over {SEEDS} seeds has a standard deviation of {result['spread'] * 100:.2f} points")
    say("mix          way            epochs  seconds  speed-up  loss (points)  95 %  within a seed's spread")
    for mix, ways in result["mixes"].items():
        for way, row in ways.items():
            say(
                f"{mix:<12} {way:<14} {row['epochs_share']:>5.0%}  {row['seconds']:>7.0f}  {row['speed_up']:>8.1f}  "
                f"{row['loss'] * 100:>13.2f}  {row['loss_p95'] * 100:>4.1f}  {row['within_spread']:>6.0%}"
            )


def _pool(loaded: LoadedStudy) -> LoadedStudy:
    """Return the study with a fixed list of configurations: POOL of each depth, with random rates and weight decay."""
    rng = np.random.default_rng(SEED)

    def drawn(low: float, high: float) -> float:
        return float(f"{10 ** rng.uniform(np.log10(low), np.log10(high)):.3g}")

    entries: list[dict[str, Any]] = []
    for depth, count in POOL.items():
        for _ in range(count):
            entry: dict[str, Any] = {"strategy": "fine_tuning" if depth else "feature_extraction"}
            entry |= {"head_lr": drawn(1e-4, 1e-1), "weight_decay": drawn(1e-6, 1e-1)}
            entries.append(entry | ({"unfreeze_depth": depth, "backbone_lr": drawn(1e-6, 1e-2)} if depth else {}))
    document = loaded.study.model_dump(mode="json", by_alias=True, exclude_unset=True)
    document |= {
        "try": entries,
        "strategies": ["feature_extraction", "fine_tuning"],
        "pruning": False,
        "batch_size": BATCH,
        "trials": len(entries) - POOL[0] + 1,  # of the larger strategy, with its default
        "confirmation": {"seeds": 2},
        "device": "cpu",
        "precision": "exact",
        "augmentation": "flips",
        "search": {
            "backbone": "resnet18",
            "unfreeze_depth": {"low": 1, "high": 5},
            "batchnorm": "fixed_stats",
            "head_lr": {"low": 1e-4, "high": 1e-1, "log": True},
            "backbone_lr": {"low": 1e-6, "high": 1e-2, "log": True},
            "weight_decay": {"low": 1e-6, "high": 1e-1, "log": True},
        },
    }
    document["data"]["limit"] = min(document["data"].get("limit") or LIMIT, LIMIT)
    return dataclasses.replace(loaded, study=parse(document, loaded.name), data_replaced=False)


def _epochs(loaded: LoadedStudy, epochs: int) -> Any:
    return loaded.study.model_copy(update={"epochs": epochs})


def _configs(loaded: LoadedStudy) -> list[TrialConfig]:
    """Return the configurations under `try` of both strategies."""
    sides: tuple[Strategy, ...] = ("feature_extraction", "fine_tuning")
    return [config for side in sides for config in tried(loaded.study, side)]


def _files(prepared: Prepared, folder: Path) -> Files:
    """Write the pixels that the harness trains on as image files for the baseline loop."""
    context = prepared.context
    data = context.data("resnet18", SEARCH_SPLIT)
    train, validation = context.splits[SEARCH_SPLIT]
    folder.mkdir(parents=True)
    paths = [folder / f"{row}.png" for row in range(len(data.images))]
    for row in np.concatenate([train, validation]).tolist():
        Image.fromarray(np.asarray(data.images[row])).save(paths[row])
    return Files(tuple(paths), context.labels, context.keys, train, validation, len(context.classes))


def _curves(
    records: Sequence[TrialRecord], seconds: float, short: Sequence[TrialRecord], objective: str
) -> list[Curve]:
    """Return the curves of the pool's configurations, without the defaults and other trials that the study added."""
    assert direction(objective) == "maximize", (
        f"the objective must be one that is maximized, but {objective} is minimized; choose another study"
    )
    between = max(seconds - sum(record.seconds_spent or 0.0 for record in records), 0.0) / len(records)
    ones = {dataclasses.replace(record.config, epochs=0): record for record in short}
    curves, left = [], dict(POOL)
    for record in records:
        one = ones.get(dataclasses.replace(record.config, epochs=0))
        depth = record.config.unfreeze_depth
        if record.state != "complete" or one is None or not left.get(depth):
            continue
        left[depth] -= 1
        # The time of the trial, spread evenly: the seconds of its epochs count shared work as if it were alone.
        own = _seconds_of_own_work(record) / len(record.epochs)
        scores = [epoch.validation[objective] for epoch in record.epochs]
        values = record.config.to_json(), scores, [own] * len(scores), between, one.score or 0.0
        curves.append(Curve(depth, *values, one_epoch_seconds=_seconds_of_own_work(one) + between))
    assert not any(left.values()), f"too few trials completed: {left} more are needed"
    return curves


def _seconds_of_own_work(record: TrialRecord) -> float:
    """Return the seconds that a trial took, without shared work."""
    return max((record.seconds_spent or 0.0) - record.shared_seconds, 0.0)


def _seeds(prepared: Prepared, winner: TrialRecord) -> list[float]:
    """Return the winner's scores over seeds, which change order, views and initialisation but not the split."""
    scores, context = [winner.score or 0.0], prepared.context
    data = context.data(winner.config.backbone, SEARCH_SPLIT)
    for seed in range(1, SEEDS):
        job = TrialJob(f"seed/{seed}", "search", winner.strategy, seed, winner.config, derive(SEED, seed), SEARCH_SPLIT)
        record = run_trial(
            job,
            data,
            lambda epoch: True,
            objective=context.objective,
            weights_name=context.weights_of(job.config),
            device=torch.device("cpu"),
            worker_cache=context.worker_cache(),
        )
        scores.append(record.score or 0.0)
    return scores
