"""The bound: the largest speed-up over the baseline loop that any sharing of frozen work can reach in float32.

It is the time of the baseline loop over the least work: each distinct (view, image) goes once through the frozen
stages, and each trial makes the steps of what it trains on activations in memory. These passes are timed without
anything around them, in turns with both sides.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F

from harness.benchmarks.baseline_loop import optimizer_of
from harness.benchmarks.task import BATCH, DEPTHS, EPOCHS, SEED, config_of
from harness.config.trial import STAGES, TrialConfig
from harness.model.transfer import build
from harness.results.records import TrialJob
from harness.seeds import derive
from harness.training.frozen_features.features import ViewFamily
from harness.training.frozen_features.input_pipeline import Normalise
from harness.training.frozen_features.worker_cache import WorkerCache
from harness.training.optimizers import lr_factor
from harness.training.precision import now
from harness.training.trial import run_trial
from harness.training.trial_data import TrialData, epoch_order, padded

PASSES = 4  # batches in one measurement of the frozen passes


class PassTimer:
    """Times the passes through the model alone, without data loading, bookkeeping and tracking."""

    def __init__(self, data: TrialData, device: torch.device) -> None:
        self._data, self._device = data, device
        self._image: list[float] = []  # seconds for an image in the frozen passes
        self._epoch: dict[int, list[float]] = {depth: [] for depth in DEPTHS}  # seconds of an epoch after the cut

    def time_once(self) -> None:
        """Time each kind of pass once."""
        self._image.append(_frozen(self._data, self._device) / (PASSES * BATCH))
        for depth, seconds in self._epoch.items():
            seconds.append(epochs_behind(self._data, config_of("none", depth), self._device, 1))

    def bound(self, recipe: str, baseline: Mapping[int, float], counts: Mapping[int, int], epochs: int) -> float:
        """Return the bound for a mix of depths.

        Args:
            baseline: depth -> seconds of one trial of the baseline loop.
            counts: depth -> number of trials.
        """
        prefix = statistics.mean(self._image) * distinct(self._data, config_of(recipe, 0, epochs=epochs))
        suffix = sum(n * epochs * statistics.mean(self._epoch[depth]) for depth, n in counts.items())
        return sum(n * baseline[depth] for depth, n in counts.items()) / (prefix + suffix)


def distinct(data: TrialData, config: TrialConfig) -> int:
    """Return the number of distinct (view, image) pairs of a trial, including the validation images."""
    seed = derive(SEED, "search")
    family = ViewFamily(config.augmentation, derive(seed, "views"))
    pairs = {(0, int(row)) for row in data.validation}
    for epoch in range(1, config.epochs + 1):
        rows = epoch_order(data.train, derive(seed, "order"), epoch, BATCH).ravel()
        numbers = family.numbers(epoch, data.keys[rows], np.zeros_like(rows))
        pairs |= set(zip(numbers.tolist(), rows.tolist(), strict=True))
    return len(pairs)


def _frozen(data: TrialData, device: torch.device) -> float:
    """Return the seconds of PASSES batches through the whole backbone, without gradients."""
    model = build("resnet18", data.num_classes, "bundled").to(device).eval()
    normalise = Normalise(model.mean, model.std, device)

    def batches(number: int) -> None:
        with torch.no_grad():
            for batch in range(number):
                model.features(normalise(data.batch(np.resize(data.train[batch * BATCH :], BATCH), device)))

    batches(1)
    started = now(device)
    batches(PASSES)
    return now(device) - started


def epochs_behind(
    data: TrialData, config: TrialConfig, device: torch.device, epochs: int, *, warm: bool = True
) -> float:
    """Return the seconds of a few epochs' steps and evaluations after a trial's cut, and of nothing else.

    After a cut the activations are in memory. At depth 5 there is no cut: each batch is taken from the images and
    normalised, as in any loop over images in memory.

    Args:
        warm: make a step before the clock starts, since the first one allocates gradients and moments.
    """
    model = build(config.backbone, data.num_classes, "bundled", seed=0).to(device).eval()
    optimizer = optimizer_of(model, config)
    cut = len(STAGES) - config.unfreeze_depth
    orders = [epoch_order(data.train, SEED, epoch, BATCH) for epoch in range(1, epochs + 1)]
    total = sum(len(order) for order in orders)
    normalise = Normalise(model.mean, model.std, device)
    with torch.no_grad():
        x = model.run_stages(normalise(data.batch(data.train[:BATCH], device)), 0, cut)

    def inputs(rows: np.ndarray) -> torch.Tensor:
        return x if cut else normalise(data.batch(rows, device))

    def step(number: int, rows: np.ndarray) -> None:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * lr_factor(number, total, config.warmup_fraction)
        labels = torch.from_numpy(data.labels[rows]).to(device)
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(inputs(rows), cut), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if device.type == "cpu":
            loss.item()  # every training loop reads its loss

    if warm:
        step(0, orders[0][0])
    started, number = now(device), 0
    for order in orders:
        for rows in order:
            step(number, rows)
            number += 1
        with torch.inference_mode():
            for rows in padded(data.validation, BATCH):
                model(inputs(rows), cut).softmax(dim=1).cpu()
    return now(device) - started


def single_trial(data: TrialData, device: torch.device, times: int = 3) -> tuple[list[float], list[float]]:
    """Return the seconds of full fine-tuning by a raw loop over images in memory, and by `run_trial`, in turns.

    Both have the same dtype, layout, batch, steps and evaluations, and both build their model. `run_trial` also checks
    its contract and computes its scores. The first turn is left out, because a process initialises some things once.

    Args:
        times: number of turns that count.
    """
    config, sharing = config_of("none", 5, epochs=EPOCHS), WorkerCache()
    raw, ours = [], []
    for turn in range(times + 1):
        started = now(device)
        build(config.backbone, data.num_classes, "bundled", seed=0).to(device)
        raw.append(now(device) - started + epochs_behind(data, config, device, config.epochs, warm=False))
        job = TrialJob(f"single/{turn}", "search", config.strategy, turn, config, turn, "search")
        started = time.perf_counter()
        record = run_trial(
            job,
            data,
            lambda epoch: True,
            objective="accuracy",
            weights_name="bundled",
            device=device,
            worker_cache=sharing,
        )
        ours.append(time.perf_counter() - started)
        assert record.state == "complete", record.reason
    return raw[1:], ours[1:]
