"""The bound: what no bookkeeping could beat in float32, from bare passes that are timed here.

Plain loop over (prefix passes + suffix work): each distinct (view, image) goes once through the frozen stages, and each
trial does the steps of what it trains on activations that lie in memory.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F

from harness.bench.plain import optimizer_of
from harness.bench.task import BATCH, EPOCHS, SEED, config_of
from harness.config.trial import STAGES, TrialConfig
from harness.model.transfer import build
from harness.training.feed import Normalise
from harness.training.inputs import TrialData, epoch_order, padded
from harness.training.precision import now
from harness.training.prefix import ViewFamily
from harness.training.schedule import factor
from harness.training.seeds import derive
from harness.training.trial import TrialJob, run_trial


def bounds(
    recipe: str, data: TrialData, naive: Mapping[int, float], mixes: Mapping[str, Mapping[int, int]],
    device: torch.device, epochs: int = EPOCHS,
) -> dict[str, float]:  # fmt: skip
    """The bound of each mix.

    Args:
        naive: seconds of one trial of the plain loop, by depth.
        mixes: trials of each depth.
    """
    prefix = prefix_seconds(data, config_of(recipe, 0, epochs=epochs), device)
    bare = {depth: bare_trial(data, config_of(recipe, depth, epochs=epochs), device) for depth in naive}
    found = {}
    for name, counts in mixes.items():
        plain = sum(n * naive[d] for d, n in counts.items())
        found[name] = plain / (prefix + sum(n * bare[d] for d, n in counts.items()))
    return found


def prefix_seconds(data: TrialData, config: TrialConfig, device: torch.device) -> float:
    """One bare forward pass through the backbone for each distinct (view, image)."""
    family = ViewFamily(config.augmentation, derive(derive(SEED, "search"), "views"))
    pairs = {(0, int(row)) for row in data.validation}
    for epoch in range(1, config.epochs + 1):
        rows = epoch_order(data.train, derive(derive(SEED, "search"), "order"), epoch, BATCH).ravel()
        numbers = family.numbers(epoch, data.keys[rows], np.zeros_like(rows))
        pairs |= set(zip(numbers.tolist(), rows.tolist(), strict=True))
    views, rows = (np.array(part) for part in zip(*sorted(pairs), strict=True))
    model = build(config.backbone, data.num_classes, "bundled").to(device).eval()
    normalise = Normalise(model.mean, model.std, device)

    def passes(number: int) -> None:
        with torch.no_grad():
            for batch in range(number):
                part = slice(batch * BATCH, (batch + 1) * BATCH)
                here, view = np.resize(rows[part], BATCH), np.resize(views[part], BATCH)
                model.features(normalise(family.render(data.batch(here, device), data.keys[here], view)))

    return _warm(passes, math.ceil(len(rows) / BATCH), device)


def bare_trial(data: TrialData, config: TrialConfig, device: torch.device) -> float:
    """Seconds of one trial's steps and evaluations behind its cut, and of nothing else.

    Behind a cut the activations lie in memory; at depth 5 each batch is taken from the images and normalised, as in any
    loop over images in memory.
    """
    model = build(config.backbone, data.num_classes, "bundled", seed=0).to(device).eval()
    optimizer = optimizer_of(model, config)
    cut = len(STAGES) - config.unfreeze_depth
    steps = len(data.train) // BATCH
    normalise = Normalise(model.mean, model.std, device)
    with torch.no_grad():
        x = model.behind(normalise(data.batch(data.train[:BATCH], device)), 0, cut)

    def inputs(rows: np.ndarray) -> torch.Tensor:
        return x if cut else normalise(data.batch(rows, device))

    def epochs(number: int) -> None:
        for epoch in range(1, number + 1):
            for step, rows in enumerate(epoch_order(data.train, SEED, epoch, BATCH)):
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * factor(
                        (epoch - 1) * steps + step, steps * config.epochs, config.warmup_fraction
                    )
                labels = torch.from_numpy(data.labels[rows]).to(device)
                optimizer.zero_grad(set_to_none=True)
                loss = F.cross_entropy(model(inputs(rows), cut), labels)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                if device.type == "cpu":
                    loss.item()  # every loop looks at its loss
            with torch.inference_mode():
                for rows in padded(data.validation, BATCH):
                    model(inputs(rows), cut).softmax(dim=1).cpu()

    return _warm(epochs, config.epochs, device)


def _warm(work: Callable[[int], None], number: int, device: torch.device) -> float:
    """Seconds of work(number), after one unit of it that warms up."""
    work(1)
    started = now(device)
    work(number)
    return now(device) - started


def single_trial(data: TrialData, device: torch.device, times: int = 3) -> tuple[list[float], list[float]]:
    """Seconds of full fine-tuning, taking turns: a raw loop over images in memory, and `run_trial`.

    Same dtype, layout, batch, steps and evaluations, each with the building of its model; the harness's side holds its
    contract and its scores as well.
    """
    config = config_of("none", 5)
    raw, ours = [], []
    for turn in range(times):
        started = now(device)
        build(config.backbone, data.num_classes, "bundled", seed=0).to(device)
        raw.append(now(device) - started + bare_trial(data, config, device))
        job = TrialJob(f"single/{turn}", "search", config.strategy, turn, config, turn, "search")
        started = time.perf_counter()
        record = run_trial(
            job, data, lambda epoch: True, objective="accuracy", weights_name="bundled", device=device
        )  # fmt: skip
        ours.append(time.perf_counter() - started)
        assert record.state == "complete", record.reason
    return raw, ours
