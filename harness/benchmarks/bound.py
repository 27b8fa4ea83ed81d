"""The bound: what no bookkeeping could beat in float32, from bare passes that are timed beside both sides.

Plain loop over (prefix passes + suffix work): each distinct (view, image) goes once through the frozen stages, and each
trial does the steps of what it trains on activations that lie in memory.
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

PASSES = 4  # batches of a turn's frozen passes


class Bare:
    """Bare passes, timed in turns."""

    def __init__(self, data: TrialData, device: torch.device) -> None:
        self._data, self._device = data, device
        self._image: list[float] = []  # seconds an image of the frozen passes
        self._epoch: dict[int, list[float]] = {depth: [] for depth in DEPTHS}  # seconds of an epoch behind its cut

    def turn(self) -> None:
        """Time each kind of pass once."""
        self._image.append(_frozen(self._data, self._device) / (PASSES * BATCH))
        for depth, seconds in self._epoch.items():
            seconds.append(epochs_behind(self._data, config_of("none", depth), self._device, 1))

    def bound(self, recipe: str, naive: Mapping[int, float], counts: Mapping[int, int], epochs: int) -> float:
        """Of a mix.

        Args:
            naive: seconds of one trial of the plain loop, by depth.
            counts: trials of each depth.
        """
        prefix = statistics.mean(self._image) * distinct(self._data, config_of(recipe, 0, epochs=epochs))
        suffix = sum(n * epochs * statistics.mean(self._epoch[depth]) for depth, n in counts.items())
        return sum(n * naive[depth] for depth, n in counts.items()) / (prefix + suffix)


def distinct(data: TrialData, config: TrialConfig) -> int:
    """Distinct (view, image) pairs of a trial, the validation images with them."""
    seed = derive(SEED, "search")
    family = ViewFamily(config.augmentation, derive(seed, "views"))
    pairs = {(0, int(row)) for row in data.validation}
    for epoch in range(1, config.epochs + 1):
        rows = epoch_order(data.train, derive(seed, "order"), epoch, BATCH).ravel()
        numbers = family.numbers(epoch, data.keys[rows], np.zeros_like(rows))
        pairs |= set(zip(numbers.tolist(), rows.tolist(), strict=True))
    return len(pairs)


def _frozen(data: TrialData, device: torch.device) -> float:
    """Seconds of PASSES batches through the whole backbone, without gradients."""
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
    """Seconds of some epochs' steps and evaluations behind a trial's cut, and of nothing else.

    Behind a cut the activations lie in memory; at depth 5 each batch is taken from the images and normalised, as in any
    loop over images in memory. `warm` takes a step before the clock starts: the one in which gradients and moments get
    their memory.
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
            loss.item()  # every loop looks at its loss

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
    """Seconds of full fine-tuning, taking turns: a raw loop over images in memory, and `run_trial`.

    Same dtype, layout, batch, steps and evaluations, each with the building of its model; the harness's side holds its
    contract and its scores as well. The first turn of both is left out: it makes what a process makes once.
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
