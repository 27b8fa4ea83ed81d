"""Sweeps in strata of unfreezing depth: the harness runs all trials, the plain loop three of each, taking turns.

The harness's side is `run_study` as a user calls it, with fixed configurations (`try:`), from the call to the end of
the search: decoding, the shared pass, training, checks, Optuna, the event log, MLflow beside it.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from harness.bench import controls
from harness.bench.plain import Files, PlainLoop, optimizer_of
from harness.config.load import LoadedStudy, parse
from harness.config.trial import STAGES, TrialConfig
from harness.data import rendered
from harness.errors import Interrupted
from harness.model.transfer import build
from harness.results.events import read_events
from harness.results.home import StudyFolder
from harness.results.records import EpochRecord, TrialRecord
from harness.study.coordinator import run_study
from harness.study.prepare import Prepared, prepare
from harness.study.search import StrategySearch
from harness.study.splits import SEARCH_SPLIT
from harness.training.feed import Normalise
from harness.training.inputs import TrialData, epoch_order, padded
from harness.training.prefix import ViewFamily
from harness.training.schedule import factor
from harness.training.seeds import derive
from harness.training.trial import TrialJob

Say = Callable[[str], None]
SLIDES, EPOCHS, BATCH = 32, 4, 32
DEPTHS = (0, 1, 2, 3, 5)
TRIALS = {0: 60, 1: 3, 2: 3, 3: 3, 5: 3}  # what the harness runs of each depth
NAIVE = 3  # trials of each depth the plain loop is timed on
MIXES = {
    "uniform": dict.fromkeys(DEPTHS, 12),
    "probe_heavy": {0: 36, 1: 12, 2: 6, 3: 3, 5: 3},
}  # trials of each depth out of 60
RECIPES = ("none", "flips")
SEED = 0


@dataclass
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
    score_gap: float = 0.0  # largest difference of the last training loss from the plain loop's, relative


@dataclass
class _Watcher:
    """Ends a study when its search has, and notes when that was."""

    ended: float | None = None
    texts: list[str] = field(default_factory=list)

    def message(self, text: str) -> None:
        self.texts.append(text)

    def working(self, what: str, done: int, of: int) -> None: ...

    def phase(self, name: str, done: int, total: int) -> None:
        if name == "Confirmation":
            self.ended = time.perf_counter()
            raise Interrupted("the search is all that is timed", 15)

    def trial_started(self, job: TrialJob) -> None: ...

    def epoch(self, job: TrialJob, record: EpochRecord) -> None: ...

    def trial_finished(self, record: TrialRecord) -> None: ...


def run(say: Say, device: str = "cpu", out: Path = Path("reports/benchmarks/sweep.json")) -> None:
    """Time everything, print it, write `out`."""
    began = time.perf_counter()
    with TemporaryDirectory() as name, _homes(Path(name)):
        folder = Path(name)
        _draw(folder / "images")
        strata, walls = [], {}
        prepared = prepare(_study(folder, "none", "exact", (0,), device), [device], lambda *a: None)
        files, data = _files(prepared, folder / "images"), prepared.context.data("resnet18", SEARCH_SPLIT)
        torch.set_num_threads(prepared.context.threads)
        say(f"{_machine()}; resnet18 at 64 px, {len(files.train)} training and {len(files.validation)} validation")
        say(f"images, batches of {BATCH}, {EPOCHS} epochs; the plain loop is timed on {NAIVE} trials of each depth")
        plain = PlainLoop(
            files, f"sqlite:///{folder / 'plain.db'}", PlainLoop.tuned_workers(files, _config("flips", 0))
        )
        for recipe in RECIPES:
            naive: dict[int, list[tuple[float, list[float]]]] = {depth: [] for depth in DEPTHS}
            found: dict[str, dict[int, list[TrialRecord]]] = {}
            for index, precision in enumerate(("exact", "auto", None)):
                for depth in DEPTHS:  # A, then B, then A …
                    naive[depth].append(plain.train(_config(recipe, depth, index), derive(SEED, "search")))
                if precision is not None:
                    found[precision], walls[recipe, precision] = _sweep(folder, recipe, precision, device)
            for precision, records in found.items():
                strata += [_stratum(recipe, precision, d, naive[d], records[d]) for d in DEPTHS]
        bound = {recipe: _bounds(recipe, data, strata) for recipe in RECIPES}
        caught = controls.all_caught(data, _config("none", 0, 0), folder / "controls", torch.device(device))
    overhead = bookkeeping()
    result: dict[str, Any] = {
        "machine": _machine(), "trials": sum(TRIALS.values()), "epochs": EPOCHS,
        "images": {"train": len(files.train), "validation": len(files.validation)}, "batch_size": BATCH,
        "strata": [_row(s) for s in strata],
        "mixes": {
            precision: {recipe: {mix: _mix(strata, recipe, precision, mix) for mix in MIXES} for recipe in RECIPES}
            for precision in ("exact", "auto")
        },
        "bound": bound, "head_only_60": {
            precision: {recipe: _ratio(strata, recipe, precision, {0: 60}) for recipe in RECIPES}
            for precision in ("exact", "auto")
        },
        "sweep_wall_s": {f"{recipe} {precision}": wall for (recipe, precision), wall in walls.items()},
        "negative_controls_caught": caught, "overhead_ms_per_trial": overhead * 1000,
        "seconds": time.perf_counter() - began,
    }  # fmt: skip
    _print(result, say)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    say(f"written to {out}; {result['seconds'] / 60:.1f} min")
    assert all(s.curves_equal for s in strata if s.precision == "exact"), "losses differ from the plain loop's"
    assert all(caught.values()), "a negative control was not caught"


@contextmanager
def _homes(folder: Path) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in ("HARNESS_HOME", "HARNESS_REPORTS", "MLFLOW_TRACKING_URI")}
    os.environ |= {"HARNESS_HOME": str(folder / "runs"), "HARNESS_REPORTS": str(folder / "reports")}
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _draw(folder: Path) -> None:
    cells = rendered.render(seed=1, slides=SLIDES)
    for number, (image, label) in enumerate(zip(cells.images, cells.labels, strict=True)):
        path = folder / cells.classes[label] / f"slide{number // rendered.PER_SLIDE:02d}_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def _config(recipe: str, depth: int, index: int = 0) -> TrialConfig:
    """Trial number `index` of a stratum: the head's rate is what differs."""
    return TrialConfig(
        "fine_tuning" if depth else "feature_extraction", "resnet18", depth, _rate(index),
        1e-4 if depth else None, batchnorm="fixed_stats" if depth else "frozen", augmentation=recipe,  # type: ignore[arg-type]
        batch_size=BATCH, epochs=EPOCHS,
    )  # fmt: skip


def _rate(index: int) -> float:
    return round(1e-3 * 1.05**index, 9)


def _study(folder: Path, recipe: str, precision: str, depths: tuple[int, ...], device: str) -> LoadedStudy:
    strategy = "fine_tuning" if depths[0] else "feature_extraction"
    rates = {"low": 1e-3, "high": 1e-1, "log": True}  # a list of 60 values would keep fANOVA busy for minutes
    tried = [
        {"strategy": strategy, "head_lr": _rate(index)} | ({"unfreeze_depth": depth} if depth else {})
        for depth in depths for index in range(TRIALS[depth])
    ]  # fmt: skip
    document: dict[str, Any] = {
        "data": {"source": {"folder": str(folder / "images")}, "split": {"group": r"slide(\d+)"}},
        "strategies": [strategy], "augmentation": recipe, "batch_size": BATCH, "epochs": EPOCHS, "pruning": False,
        "search": {"head_lr": rates} | ({"unfreeze_depth": list(depths), "backbone_lr": 1e-4} if depths[0] else {}),
        "try": tried, "trials": len(tried), "confirmation": {"seeds": 2}, "executor": "inline", "device": device,
        "precision": precision, "seed": SEED,
    }  # fmt: skip
    name = f"{recipe}-{precision}-{strategy.replace('_', '-')}"
    return LoadedStudy(name, parse(document, name), data_replaced=False, path=folder / f"{name}.yaml")


def _files(prepared: Prepared, folder: Path) -> Files:
    context, table = prepared.context, prepared.dataset.table
    train, validation = context.splits[SEARCH_SPLIT]
    paths = tuple(folder / path for path in table["path"])
    return Files(paths, context.labels, context.keys, train, validation, len(context.classes))


def _sweep(folder: Path, recipe: str, precision: str, device: str) -> tuple[dict[int, list[TrialRecord]], float]:
    """The records of all strata, by depth, and the seconds of both studies together."""
    by_depth: dict[int, list[TrialRecord]] = {depth: [] for depth in DEPTHS}
    wall = 0.0
    for depths in ((0,), DEPTHS[1:]):
        loaded, watcher = _study(folder, recipe, precision, depths, device), _Watcher()
        started = time.perf_counter()
        with suppress(Interrupted):
            run_study(loaded, watcher)
        assert watcher.ended is not None, watcher.texts
        seconds = watcher.ended - started
        wall += seconds
        records = [
            TrialRecord.from_json(e.data)
            for e in read_events(StudyFolder(loaded.name).events)
            if e.kind == "trial_finished"
        ]
        # What no trial's own seconds hold (scan, decoding, plan, Optuna, log, MLflow) is divided evenly.
        between = (seconds - sum(r.seconds_spent or 0.0 for r in records)) / len(records)
        for record in records:
            record.extra["between"] = between
            by_depth[record.config.unfreeze_depth].append(record)
    return by_depth, wall


def _stratum(
    recipe: str, precision: str, depth: int, naive: list[tuple[float, list[float]]], records: list[TrialRecord]
) -> Stratum:
    own = {record.config: record for record in records}
    pairs = [
        (losses, [epoch.train_loss for epoch in own[_config(recipe, depth, index)].epochs])
        for index, (_, losses) in enumerate(naive)
    ]
    spent = [(record.seconds_spent or 0.0) + record.extra["between"] for record in records]
    shared = sum(record.shared_seconds for record in records)
    return Stratum(
        recipe, precision, depth, [seconds for seconds, _ in naive],
        (sum(spent) - shared) / len(records), shared,
        curves_equal=all(one == other for one, other in pairs),
        reason=next((r.cache_reason for r in records if r.cache_reason), None),
        score_gap=max(abs(one[-1] - other[-1]) / abs(one[-1]) for one, other in pairs),
    )  # fmt: skip


def _of(strata: list[Stratum], recipe: str, precision: str) -> dict[int, Stratum]:
    return {s.depth: s for s in strata if (s.recipe, s.precision) == (recipe, precision)}


def _ratio(strata: list[Stratum], recipe: str, precision: str, counts: dict[int, int]) -> float:
    """Seconds of the plain loop over the harness's for so many trials of each depth, shared work counted once."""
    here = _of(strata, recipe, precision)
    naive = sum(n * statistics.mean(here[d].naive) for d, n in counts.items())
    ours = sum(n * here[d].harness for d, n in counts.items()) + sum(here[d].shared for d in counts)
    return naive / ours


def _mix(strata: list[Stratum], recipe: str, precision: str, mix: str) -> float:
    return _ratio(strata, recipe, precision, MIXES[mix])


def _bounds(recipe: str, data: TrialData, strata: list[Stratum]) -> dict[str, float]:
    """Plain loop over (prefix passes + suffix work), both bare: what no bookkeeping could beat in float32."""
    here = _of(strata, recipe, "exact")
    config = _config(recipe, 0)
    prefix, bare = _prefix_seconds(data, config), {depth: _bare(data, _config(recipe, depth)) for depth in DEPTHS}
    bounds = {}
    for name, counts in {**MIXES, "head_only_60": {0: 60}}.items():
        naive = sum(n * statistics.mean(here[d].naive) for d, n in counts.items())
        bounds[name] = naive / (prefix + sum(n * bare[d] for d, n in counts.items()))
    return bounds


def _prefix_seconds(data: TrialData, config: TrialConfig) -> float:
    """One bare forward pass through the backbone for each distinct (view, image)."""
    family = ViewFamily(config.augmentation, derive(derive(SEED, "search"), "views"))
    pairs = {(0, int(row)) for row in data.validation}
    for epoch in range(1, EPOCHS + 1):
        rows = epoch_order(data.train, derive(derive(SEED, "search"), "order"), epoch, BATCH).ravel()
        numbers = family.numbers(epoch, data.keys[rows], np.zeros_like(rows))
        pairs |= set(zip(numbers.tolist(), rows.tolist(), strict=True))
    views, rows = (np.array(part) for part in zip(*sorted(pairs), strict=True))
    model = build("resnet18", data.num_classes, "bundled").eval()
    normalise = Normalise(model.mean, model.std, torch.device("cpu"))
    started = time.perf_counter()
    with torch.no_grad():
        for i in range(0, len(rows), BATCH):
            part = np.resize(rows[i : i + BATCH], BATCH), np.resize(views[i : i + BATCH], BATCH)
            images = family.render(data.batch(part[0], torch.device("cpu")), data.keys[part[0]], part[1])
            model.features(normalise(images))
    return time.perf_counter() - started


def _bare(data: TrialData, config: TrialConfig) -> float:
    """Seconds of the suffix work of one trial: steps and evaluation on activations in memory, and nothing else."""
    model = build("resnet18", data.num_classes, "bundled", seed=0).eval()
    optimizer = optimizer_of(model, config)
    cut = len(STAGES) - config.unfreeze_depth
    steps = len(data.train) // BATCH
    normalise = Normalise(model.mean, model.std, torch.device("cpu"))
    with torch.no_grad():
        x = model.behind(normalise(data.batch(data.train[:BATCH], torch.device("cpu"))), 0, cut)
    labels = torch.from_numpy(data.labels[data.train[:BATCH]])
    started = time.perf_counter()
    for epoch in range(EPOCHS):
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor(epoch * steps + step, steps * EPOCHS, 0.1)
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(x, cut), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.inference_mode():
            for _ in padded(data.validation, BATCH):
                model(x, cut)
    return time.perf_counter() - started


def bookkeeping(trials: int = 300) -> float:
    """Seconds a trial waits for Optuna (ask, ten looks of the pruner, tell) and for the event log."""
    from harness.config.space import space
    from harness.results.events import EventLog

    search = {
        "head_lr": {"low": 1e-4, "high": 1e-1, "log": True}, "backbone_lr": {"low": 1e-6, "high": 1e-2, "log": True},
        "unfreeze_depth": {"low": 1, "high": 5}, "weight_decay": {"low": 1e-6, "high": 0.1, "log": True},
    }  # fmt: skip
    here = space(parse({"search": search}, "bench"), "fine_tuning")
    made, rng = StrategySearch(here, "accuracy", 0, 10), np.random.default_rng(0)
    with TemporaryDirectory() as folder:
        log = EventLog(Path(folder) / "events.jsonl")
        started = time.perf_counter()
        for slot in range(trials):
            asked = made.ask(slot, 0)
            made.accept(asked, str(slot))
            log.append("trial_started", {"config": asked.config.to_json(), "params": asked.params})
            for epoch in range(1, 11):
                log.append("epoch", {"epoch": epoch, "validation": dict.fromkeys("abcdefgh", 0.5)}, sync=False)
                made.should_prune(str(slot), epoch, float(rng.random()))
            log.append("trial_finished", {"slot": slot, "config": asked.config.to_json()})
            made.tell_score(str(slot), float(rng.random()))
        seconds = time.perf_counter() - started
        log.close()
    return seconds / trials


def _machine() -> str:
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    model = platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}{gpu}"


def _row(s: Stratum) -> dict[str, Any]:
    trials = TRIALS[s.depth]
    return {
        "recipe": s.recipe, "precision": s.precision, "depth": s.depth, "trials": trials, "naive_timed": len(s.naive),
        "distinct_views": 1 if s.recipe == "none" else min(8, EPOCHS), "naive_s": statistics.mean(s.naive) * trials,
        "naive_spread": [min(s.naive), max(s.naive)], "harness_s": s.harness * trials + s.shared, "shared_s": s.shared,
        "ratio": statistics.mean(s.naive) * trials / (s.harness * trials + s.shared), "curves_equal": s.curves_equal,
        "loss_gap": s.score_gap, "cache_reason": s.reason,
    }  # fmt: skip


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
                share = f", {ratio / result['bound'][recipe][mix]:.0%} of the bound" if precision == "exact" else ""
                say(f"{precision}, {recipe}, {mix}: {ratio:.2f} times{share}")
    for recipe, ratio in result["head_only_60"]["exact"].items():
        bound = result["bound"][recipe]["head_only_60"]
        say(f"60 heads, {recipe}: {ratio:.0f} times, {ratio / bound:.0%} of the bound ({bound:.0f})")
    say(f"bookkeeping: {result['overhead_ms_per_trial']:.1f} ms a trial")
    say(f"negative controls caught: {result['negative_controls_caught']}")
