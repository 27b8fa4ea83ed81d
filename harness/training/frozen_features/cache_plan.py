"""The cache plan: which activations a study keeps, chosen by the computing saved for each byte, within a budget.

The plan changes only the time a study takes, and no result (see `features.py`). It may therefore differ between
machines and between two starts of a study.
"""

from __future__ import annotations

import itertools
import math
import shutil
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from harness.config import unfreezing
from harness.config.backbone_costs import cost
from harness.config.parameters import PARAMETERS
from harness.config.space import SearchSpace, side_of, space
from harness.config.study import StudyConfig
from harness.config.trial import DEPTH_MAX, TrialConfig
from harness.errors import ConfigError
from harness.model.meta import build_shapes
from harness.results.names import SEARCH_SPLIT, confirmation_split
from harness.training.frozen_features.features import reason_against
from harness.training.frozen_features.worker_cache import CachedFeatures, CacheKey, Plan, cache_key

MAX_SIZE_RATIO = 3  # activation against stored image, in bytes; reading a larger one takes as long as computing it
STORE_COST = 1.5  # assumed cost of computing and storing an activation, in forward passes
MEMORY_SHARE = 0.25  # of the free memory, because activations that are read stay in the system's file cache
DISK_SHARE = 0.25  # of the free disk space
MAX_CONFIGURATIONS = 1024  # that are examined; from a larger space as many are drawn at random


@dataclass(frozen=True)
class Sizes:
    """The numbers of images that a plan is made for."""

    train: int
    validation: int


def default_budget(folder: Path) -> int:
    """Return the bytes for activations if the study gives no `cache_gb`."""
    return int(min(MEMORY_SHARE * psutil.virtual_memory().available, DISK_SHARE * shutil.disk_usage(folder).free))


def make_plan(study: StudyConfig, sizes: Sizes, folder: Path, budget: int, channels: int = 3) -> Plan:
    """Choose the cuts whose activations are kept, one by one: those that save the most FLOPs for each byte first.

    Args:
        folder: folder of the activations.
        budget: bytes.
        channels: of the images.
    """
    uses = _expected_uses(study)
    chosen: dict[CacheKey, tuple[int, ...]] = {}
    spent = 0
    reasons: dict[tuple[CacheKey, int], str] = {}
    candidates: dict[tuple[CacheKey, int], int] = {}
    for key, by_cut in uses.items():
        side = side_of(study, key[0], study.weights.named(key[5]))
        own = side * side * channels
        for cut, size in enumerate(cut_bytes(key[0], side, channels), start=1):
            if size > MAX_SIZE_RATIO * own:
                reasons[key, cut] = f"an image's activations take {size / own:.1f} times its own bytes"
            elif any(by_cut.get(c) for c in range(cut, DEPTH_MAX + 1)):
                candidates[key, cut] = int(size * (distinct_views(study, key[2]) * sizes.train + sizes.validation))
    while candidates:
        gains = {
            (key, cut): _gain(study, key, uses[key], (*chosen.get(key, ()), cut), sizes)
            - (_gain(study, key, uses[key], chosen[key], sizes) if key in chosen else 0.0)
            for key, cut in candidates
        }
        best = max(candidates, key=lambda key: (gains[key] / candidates[key], -key[1]))
        size = candidates.pop(best)
        if gains[best] <= 0:
            reasons[best] = "too few trials would read these activations"
        elif spent + size > budget:
            reasons[best] = "its activations do not fit into cache_gb"
        else:
            spent += size
            chosen[best[0]] = tuple(sorted((*chosen.get(best[0], ()), best[1])))
    kept = tuple(CachedFeatures(*key, cuts=cuts) for key, cuts in chosen.items())
    return Plan(folder, kept, budget, bytes=spent, left_out=tuple((*key, reason) for key, reason in reasons.items()))


@cache
def cut_bytes(backbone: str, side: int, channels: int = 3) -> tuple[int, ...]:
    """Return the bytes of one image's activations after each stage, stem first, in float32."""
    model = build_shapes(backbone, 2, image_size=side, in_channels=channels).eval()
    x = torch.empty(2, channels, side, side, device="meta")
    sizes = []
    for stage in range(DEPTH_MAX):
        x = model.run_stages(x, stage, stage + 1)
        sizes.append(x[0].numel() * 4)
    return tuple(sizes)


def distinct_views(study: StudyConfig, views: str) -> float:
    """Return the expected number of distinct views of a training image in a trial; `views` as in CachedFeatures."""
    if views != "flips":
        return study.epochs
    recipes = {r for s in study.strategies for r in space(study, s).ranges["augmentation"].values()}
    return 8 * (1 - (7 / 8) ** study.epochs) if "flips" in recipes else 1


def _gain(study: StudyConfig, key: CacheKey, by_cut: dict[int, float], cuts: Iterable[int], sizes: Sizes) -> float:
    """Return the forward FLOPs that keeping these cuts saves in the study, minus the FLOPs for computing them."""
    stages = cost(key[0]).forward
    up_to = [sum(stages[:cut]) for cut in range(DEPTH_MAX + 1)]
    kept = sorted(cuts)
    saved = sum(
        passes * (sizes.train + sizes.validation) * max((up_to[k] for k in kept if k <= cut), default=0)
        for cut, passes in by_cut.items()
    )
    return saved - STORE_COST * up_to[kept[-1]] * (distinct_views(study, key[2]) * sizes.train + sizes.validation)


def _expected_uses(study: StudyConfig) -> dict[CacheKey, dict[int, float]]:
    """Return the expected number of epochs of all trials at each cut, if all configurations are equally likely."""
    uses: dict[CacheKey, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    confirmed = study.confirmation.top + 1
    splits = {
        SEARCH_SPLIT: study.trials,
        **{confirmation_split(index): confirmed for index in range(study.confirmation.seeds)},
    }
    for strategy in study.strategies:
        configs = list(_configurations(space(study, strategy)))
        for config in configs:
            random = strategy == "from_scratch" or study.weights.named(config.weights).is_random
            for epoch in range(1, config.epochs + 1):
                cut = unfreezing.frozen_prefix(config, epoch)
                if reason_against(config, epoch, cut) is not None:
                    continue
                for split, trials in splits.items():
                    key = cache_key(config, split, random_weights=random)
                    uses[key][cut] += trials / len(configs)
    return {key: dict(by_cut) for key, by_cut in uses.items()}


def _configurations(search_space: SearchSpace) -> Iterable[TrialConfig]:
    """Return one configuration for each combination of the parameters that activations depend on.

    A range of real numbers is represented by its ends.
    """
    names = [name for name, parameter in PARAMETERS.items() if parameter.sharing]
    values = [search_space.ranges[name].some_values() for name in names]
    if math.prod(len(v) for v in values) <= MAX_CONFIGURATIONS:
        combinations: Iterable[tuple[Any, ...]] = itertools.product(*values)
    else:
        rng = np.random.default_rng(0)
        combinations = (tuple(v[rng.integers(len(v))] for v in values) for _ in range(MAX_CONFIGURATIONS))
    for combination in combinations:
        config = search_space.config(dict(zip(names, combination, strict=True)))
        try:
            unfreezing.check_schedule(config)
        except ConfigError:  # this depth and number of epochs leave a phase without an epoch
            continue
        yield config
