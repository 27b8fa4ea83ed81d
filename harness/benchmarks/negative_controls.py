"""Negative controls for the comparison of loss curves: faults that it must detect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.config.trial import DEPTH_MAX, TrialConfig
from harness.results.records import TrialJob, TrialRecord
from harness.training.frozen_features import features
from harness.training.frozen_features.store import _check
from harness.training.frozen_features.worker_cache import CachedFeatures, Plan, WorkerCache, cache_key
from harness.training.trial import run_trial
from harness.training.trial_data import TrialData


def all_caught(data: TrialData, config: TrialConfig, folder: Path, device: torch.device) -> dict[str, bool]:
    """Return for each kind of fault whether the losses of a head-only trial differ because of it.

    The faults are a flipped byte in the stored activations, frozen stages in train mode, and another seed.
    """
    plan = Plan(folder, (CachedFeatures(*cache_key(config, "search", random_weights=False), cuts=(DEPTH_MAX,)),))
    right = _losses(data, config, plan, device)
    assert _losses(data, config, plan, device) == right, "the same trial twice must give the same losses"
    (rows,) = folder.glob("*/cut5-view0.rows")
    _flip_a_byte(rows, len(data.images), int(data.train[0]))
    flipped = _losses(data, config, plan, device)
    other = _losses(data, config, plan, device, seed=1)
    real = features.FrozenFeatures._taps

    def by_the_batch(self: features.FrozenFeatures, *args: Any, **options: Any) -> Any:
        for module in self._model.modules():  # as `model.train()` without a BatchNorm policy would leave them
            module.training = True
        return real(self, *args, **options)

    features.FrozenFeatures._taps = by_the_batch  # type: ignore[method-assign]
    try:
        drifting = _losses(data, config, Plan(folder / "train mode", plan.kept), device, probed=False)
    finally:
        features.FrozenFeatures._taps = real  # type: ignore[method-assign]
    return {"flipped_byte": flipped != right, "prefix_train_mode": drifting != right, "other_seed": other != right}


def _losses(
    data: TrialData, config: TrialConfig, plan: Plan, device: torch.device, seed: int = 0, probed: bool = True
) -> list[float]:
    """Return the training losses of one trial.

    Args:
        probed: check the cached features with the probe, as a real trial does.
    """
    job = TrialJob("control/0", "search", config.strategy, 0, config, seed, "search")
    real = features.FrozenFeatures.fault
    if not probed:  # the probe notices this harm before any trial does

        def sound(self: features.FrozenFeatures, cut: int) -> None:
            real(self, cut)

        features.FrozenFeatures.fault = sound  # type: ignore[method-assign]
    try:
        record: TrialRecord = run_trial(
            job,
            data,
            lambda epoch: True,
            objective="accuracy",
            weights_name="bundled",
            device=device,
            worker_cache=WorkerCache(plan),
        )
    finally:
        features.FrozenFeatures.fault = real  # type: ignore[method-assign]
    return [epoch.train_loss for epoch in record.epochs]


def _flip_a_byte(rows: Path, images: int, row: int) -> None:
    """Flip a byte of one image's activations and correct the checksum; otherwise the row would be computed again."""
    values = np.memmap(rows, np.uint8, "r+", shape=(images, rows.stat().st_size // images))
    values[row, 3] ^= (
        0x40  # the highest byte of the first number, so that a 0, which is frequent after a ReLU, changes too
    )
    checks = np.memmap(rows.with_suffix(".crc"), np.uint64, "r+", shape=(images,))
    checks[row] = _check(np.ascontiguousarray(values[row]))
    values.flush()
    checks.flush()
