"""`make bench`: one trial of the harness against a plain loop, and the bookkeeping of a trial.

Both sides train the same model on the same images in the same order, interleaved A B A B in one process, and
their training losses must be equal bit for bit. A ratio in one run counts; an absolute time does not.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F

from harness.config.load import parse
from harness.config.space import space
from harness.config.trial import Strategy, TrialConfig
from harness.data import rendered
from harness.results.events import EventLog
from harness.results.records import TrialRecord
from harness.study.search import StrategySearch
from harness.training.inputs import TrialData, draw_views, epoch_order, padded
from harness.training.schedule import factor
from harness.training.seeds import derive
from harness.training.trial import TrialJob, run_trial

REPEATS = 3
Say = Callable[[str], None]


def run(say: Say, device_name: str = "cpu") -> None:
    """Time both, print a line each; raises AssertionError where the losses differ on a CPU."""
    device = torch.device(device_name)
    data = _data()
    study = parse({"epochs": 2}, "bench")
    say(f"{torch.get_num_threads()} threads, {device}, resnet18 at 64 px, {len(data.train)} images, 2 epochs")
    for strategy in ("feature_extraction", "fine_tuning"):
        config = space(study, strategy).default()
        plain_seconds, harness_seconds, checking = [], [], []
        for _ in range(REPEATS):
            seconds, losses = _plain(config, data, device)
            plain_seconds.append(seconds)
            seconds, record = _harness(config, data, device)
            again = [epoch.train_loss for epoch in record.epochs]
            harness_seconds.append(seconds)
            checking.append(record.contract_seconds / record.seconds_alone)
            if device.type == "cpu":
                assert losses == again, "the plain loop and the harness must give the same losses"
        ratio = statistics.median(p / h for p, h in zip(plain_seconds, harness_seconds, strict=True))
        say(
            f"{strategy}: plain loop {statistics.median(plain_seconds):.1f} s, harness "
            f"{statistics.median(harness_seconds):.1f} s, ratio {ratio:.2f}, losses equal, "
            f"contract {statistics.median(checking):.2%} of the trial"
        )
    say(f"bookkeeping (Optuna and event log, without MLflow): {_bookkeeping('fine_tuning') * 1000:.0f} ms a trial")


def _data() -> TrialData:
    cells = rendered.render(seed=1, slides=60)
    rows = np.random.default_rng(0).permutation(len(cells.labels))
    keys = np.arange(len(rows), dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return TrialData(cells.images, cells.labels, keys, rows[:512], rows[512:], tuple(cells.classes))


def _job(config: TrialConfig) -> TrialJob:
    return TrialJob(f"{config.strategy}/0", "search", config.strategy, 0, config, 0, "search")


def _harness(config: TrialConfig, data: TrialData, device: torch.device) -> tuple[float, TrialRecord]:
    started = time.perf_counter()
    record = run_trial(
        _job(config), data, lambda epoch: True, objective="accuracy", weights_name="bundled", device=device
    )
    return time.perf_counter() - started, record


def _plain(config: TrialConfig, data: TrialData, device: torch.device) -> tuple[float, list[float]]:
    """What a careful user writes by hand; images are in memory for both sides."""
    from harness.model.transfer import build

    started = time.perf_counter()
    model = build(config.backbone, data.num_classes, "bundled", seed=derive(0, "initialisation")).to(device)
    frozen = config.strategy == "feature_extraction"
    if frozen:
        model.stages.requires_grad_(False)
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    rest = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    head = {id(p) for p in model.head.parameters()}
    groups = [
        {
            "params": [p for p in group if (id(p) in head) == of_head],
            "weight_decay": decay,
            "peak": config.head_lr if of_head else config.backbone_lr,
        }
        for group, decay in ((decayed, config.weight_decay), (rest, 0.0))
        for of_head in (False, True)
        if any((id(p) in head) == of_head for p in group)
    ]
    optimizer = torch.optim.AdamW(groups)
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (model.mean, model.std))
    means = []
    for epoch in range(1, config.epochs + 1):
        model.eval()  # both defaults keep every BatchNorm statistic, and ResNet has no dropout
        order = epoch_order(data.train, derive(0, "order"), epoch, config.batch_size)
        losses = []
        for step, rows in enumerate(order):
            rate = factor((epoch - 1) * len(order) + step, len(order) * config.epochs, config.warmup_fraction)
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * rate
            images = (draw_views(data, config.augmentation, derive(0, "views"), epoch, rows, device) - mean) / std
            loss = F.cross_entropy(model(images), torch.from_numpy(data.labels[rows]).to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.detach())
        means.append(float(torch.stack(losses).cpu().double().mean()))
        with torch.inference_mode():
            for rows in padded(data.validation, config.batch_size):
                model((data.batch(rows, device) - mean) / std)
    return time.perf_counter() - started, means


def _bookkeeping(strategy: Strategy, trials: int = 30) -> float:
    """Seconds a trial costs the coordinator beside its training: ask, log, tell."""
    study = parse({"search": {"head_lr": {"low": 1e-4, "high": 1e-1, "log": True}, "weight_decay": [0, 1e-4]}}, "bench")
    with TemporaryDirectory() as folder:
        search = StrategySearch(space(study, strategy), "accuracy", 0, 10)
        log = EventLog(Path(folder) / "events.jsonl")
        started = time.perf_counter()
        for slot in range(trials):
            asked = search.ask(slot, 0)
            search.accept(asked, str(slot))
            log.append("trial_started", {"config": asked.config.to_json()})
            for epoch in range(1, 11):
                log.append("epoch", {"epoch": epoch}, sync=False)
                search.should_prune(str(slot), epoch, 0.5)
            log.append("trial_finished", {"slot": slot})
            search.drop(str(slot))
        log.close()
        return (time.perf_counter() - started) / trials
