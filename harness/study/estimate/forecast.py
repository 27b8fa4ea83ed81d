"""Forecast what a study will need (memory, disk, and time by strategy and depth) from a short measurement.

`harness plan` prints the forecast. Memory is estimated in `memory`, which every study also checks before it starts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from harness.config.backbone_costs import cost
from harness.config.space import backbones, space
from harness.config.study import StudyConfig
from harness.config.trial import DEPTH_MAX
from harness.model.transfer import build
from harness.results.names import SEARCH_SPLIT
from harness.study.estimate.memory import Memory, estimate_memory
from harness.study.prepare import Prepared
from harness.training.frozen_features.cache_plan import distinct_views
from harness.training.precision import now, set_precision
from harness.training.trial_data import TrialData

SAMPLE = 3  # timed passes, after one that warms up


@dataclass(frozen=True)
class Rate:
    """Seconds for each image, of one backbone at the study's image size and batch size."""

    forward: float
    backward: float  # through the whole model


@dataclass(frozen=True)
class DepthForecast:
    """The time of one trial, by strategy, backbone and unfreeze depth."""

    backbone: str
    strategy: str
    depth: int
    seconds_alone: float  # if the trial computes its activations itself
    seconds_shared: float  # if shared activations exist already


@dataclass(frozen=True)
class Forecast:
    """What a study will need: memory and disk in bytes, time in seconds."""

    memory: Memory
    activations: int  # bytes on disk, read through the system's file cache
    budget: int  # bytes that activations may take
    depths: tuple[DepthForecast, ...]
    search_seconds: float
    confirmation_seconds: float
    exploration_seconds: float  # training after the verdict; the passes over shifted images are not included


def forecast(prepared: Prepared, devices: list[str]) -> Forecast:
    """Measure a few passes of each backbone, and compute the rest from the backbones' work in each stage.

    The result is an upper bound: every configuration is taken as equally likely, and no trial is pruned.
    """
    study, context, workers = prepared.study, prepared.context, len(devices)
    torch.set_num_threads(context.threads)
    set_precision(context.precision)
    depths: list[DepthForecast] = []
    rates: dict[str, Rate] = {}
    for backbone in backbones(study):
        data = context.data(backbone, SEARCH_SPLIT)
        rates[backbone] = _measure(study, backbone, data, torch.device(devices[0]))
        for strategy in study.strategies:
            values = space(study, strategy).ranges["unfreeze_depth"].some_values()
            depths += [_forecast_depth(strategy, backbone, d, rates[backbone], data, prepared) for d in values]
    by_strategy = {s: [d for d in depths if d.strategy == s] for s in study.strategies}
    shared = {s: sum(d.seconds_shared for d in found) / len(found) for s, found in by_strategy.items()}
    caching = sum(
        rates[kept.backbone].forward * kept_rows(prepared, kept.views)
        for kept in context.plan.kept
        if kept.split in (None, SEARCH_SPLIT)
    )
    runs = (study.confirmation.top + 1) * study.confirmation.seeds
    controlled = study.controlled.changes * min(study.controlled.seeds, study.confirmation.seeds)
    smaller = sum(fraction for fraction in study.data_sizes if fraction < 1) * study.confirmation.seeds
    return Forecast(
        memory=estimate_memory(prepared, devices),
        activations=context.plan.bytes,
        budget=context.plan.budget,
        depths=tuple(depths),
        search_seconds=(caching + study.trials * sum(shared.values())) / workers,
        confirmation_seconds=runs * sum(shared.values()) / workers,
        exploration_seconds=(controlled + smaller) * sum(shared.values()) / workers,
    )


def kept_rows(prepared: Prepared, views: str) -> float:
    """Return how many rows of activations are computed: views times training images, plus the validation images."""
    train, validation = prepared.context.splits[SEARCH_SPLIT]
    study = prepared.study
    distinct = distinct_views(study, views)
    return float(distinct * len(train) + len(validation))


def _measure(study: StudyConfig, backbone: str, data: TrialData, device: torch.device) -> Rate:
    """Time forward and backward passes of the largest batch; the fastest of each counts."""
    size = max(int(v) for s in study.strategies for v in space(study, s).ranges["batch_size"].ends())
    side, channels = data.images.shape[1], data.channels
    model = build(backbone, data.num_classes, image_size=side, in_channels=channels).to(device).eval()
    images = torch.rand(size, channels, side, side, device=device)
    labels = torch.zeros(size, dtype=torch.long, device=device)
    forward: list[float] = []
    both: list[float] = []
    for turn in range(SAMPLE + 1):
        started = now(device)
        with torch.no_grad():
            model(images)
        forward.append(now(device) - started)
        started = now(device)
        F.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
        both.append(now(device) - started)
        model.zero_grad(set_to_none=True)
        if turn == 0:
            forward.clear()  # this turn warmed up
            both.clear()
    return Rate(min(forward) / size, max(min(both) - min(forward), 0.0) / size)


def _forecast_depth(
    strategy: str, backbone: str, depth: int, rate: Rate, data: TrialData, prepared: Prepared
) -> DepthForecast:
    known, study = cost(backbone), prepared.study
    train, validation = len(data.train), len(data.validation)
    cut = DEPTH_MAX - depth
    kept = max((c for k in prepared.context.plan.kept if k.backbone == backbone for c in k.cuts if c <= cut), default=0)
    total = sum(known.forward)

    def seconds(first: int) -> float:
        rest = sum(known.forward[first:]) / total * rate.forward
        back = known.backward_share(depth) * rate.backward
        return study.epochs * (train * (rest + back) + validation * rest)

    prefix = sum(known.forward[:kept]) / total * rate.forward * kept_rows(prepared, "flips") if kept else 0.0
    return DepthForecast(backbone, strategy, depth, prefix + seconds(kept), seconds(kept))
