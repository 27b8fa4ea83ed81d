"""The baseline: an ordinary training loop over image files, with persistent DataLoader workers and MLflow.

It decodes and augments every image in every epoch and runs the whole model in every step. Order, views and
initialisation are those of the harness, derived from the same seeds, so on a CPU its losses must equal the harness's
bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from harness.config.trial import TrialConfig
from harness.data import augmentation
from harness.model.transfer import TransferModel, build
from harness.results import metrics
from harness.seeds import derive
from harness.tracking.address import prepare_environment
from harness.training.optimizers import lr_factor
from harness.training.trial_data import epoch_order, padded

prepare_environment()  # before the import, because MLflow starts its telemetry when it is imported
import mlflow  # noqa: E402

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Files:
    """Image files and one split of them; the input of the baseline loop."""

    paths: tuple[Path, ...]
    labels: NDArray[np.int64]
    keys: NDArray[np.uint64]  # identify the images; the views are drawn from them
    train: NDArray[np.int64]  # rows of `paths`
    validation: NDArray[np.int64]
    num_classes: int


class _Images(Dataset[tuple[torch.Tensor, int]]):
    """Decodes an image at every access. An item is (row, epoch); epoch 0 is not augmented."""

    def __init__(self, files: Files, recipe: str, seed: int) -> None:
        self._files, self._recipe, self._seed = files, recipe, seed

    def __getitem__(self, item: tuple[int, int]) -> tuple[torch.Tensor, int]:
        row, epoch = item
        with Image.open(self._files.paths[row]) as image:
            pixels = torch.from_numpy(np.array(image.convert("RGB")))
        x = pixels.permute(2, 0, 1).contiguous().float().div_(255.0)
        if epoch and self._recipe == "flips":
            code = augmentation.draw("flips", self._seed, epoch, self._files.keys[row : row + 1])[0, 0]
            x = augmentation.dihedral(x[None], int(code))[0].contiguous()
        return x, int(self._files.labels[row])


class _BatchSampler:
    """Batches of (row, epoch) for a loader with persistent workers; set `batches` before each epoch."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, int]]] = []

    def __iter__(self) -> object:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class BaselineLoop:
    """Trains configurations one after the other, each from its initial weights.

    Args:
        store: address of the MLflow store.
        workers: number of DataLoader workers; see `tuned_workers`.
        mixed: use bfloat16 autocast and channels_last, as is usual on a GPU.
    """

    def __init__(
        self, files: Files, store: str, workers: int, device: torch.device = CPU, *, mixed: bool = False
    ) -> None:
        self._files, self._workers, self._device, self._mixed = files, workers, device, mixed
        mlflow.set_tracking_uri(store)
        mlflow.set_experiment("baseline loop")

    def train(self, config: TrialConfig, seed: int, weights: str = "bundled") -> tuple[float, list[float]]:
        """Train one configuration; return the seconds from start to end and the training loss of each epoch."""
        files, device, started = self._files, self._device, time.perf_counter()
        model = build(config.backbone, files.num_classes, weights, image_size=64, seed=derive(seed, "initialisation"))
        model.to(device, memory_format=torch.channels_last if self._mixed else torch.preserve_format)  # type: ignore[call-overload]
        optimizer = optimizer_of(model, config)
        mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (model.mean, model.std))

        def logits(images: torch.Tensor) -> torch.Tensor:
            images = images.to(device, non_blocking=True)
            if self._mixed:
                images = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16, enabled=self._mixed):
                out: torch.Tensor = model((images - mean) / std)
            return out.float()

        order = _BatchSampler()
        loader = DataLoader(
            _Images(files, config.augmentation, derive(seed, "views")),
            batch_sampler=order,  # type: ignore[arg-type]
            num_workers=self._workers,
            persistent_workers=self._workers > 0,
            pin_memory=device.type == "cuda",
        )
        evaluation = [[(int(row), 0) for row in batch] for batch in padded(files.validation, config.batch_size)]
        losses = []
        with mlflow.start_run():
            mlflow.log_params(config.to_json())
            for epoch in range(1, config.epochs + 1):
                rows = epoch_order(files.train, derive(seed, "order"), epoch, config.batch_size)
                order.batches = [[(int(row), epoch) for row in batch] for batch in rows]
                model.eval()  # the timed BatchNorm policies keep all statistics, and ResNet has no dropout
                steps = []
                for step, (images, labels) in enumerate(loader):
                    rate = lr_factor((epoch - 1) * len(rows) + step, len(rows) * config.epochs, config.warmup_fraction)
                    for group in optimizer.param_groups:
                        group["lr"] = group["peak"] * rate
                    optimizer.zero_grad(set_to_none=True)
                    loss = F.cross_entropy(logits(images), labels.to(device, non_blocking=True))
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    steps.append(loss.detach())
                losses.append(float(torch.stack(steps).double().mean()))
                order.batches = evaluation
                with torch.inference_mode():
                    outputs = [logits(images).softmax(dim=1).cpu() for images, _ in loader]
                probabilities = torch.cat(outputs)[: len(files.validation)].numpy()
                scores = metrics.all_metrics(probabilities, files.labels[files.validation])
                mlflow.log_metrics({"train_loss": losses[-1], **scores}, step=epoch)
        return time.perf_counter() - started, losses

    @classmethod
    def tuned_workers(cls, files: Files, config: TrialConfig, choices: Sequence[int] = (0, 1, 2)) -> int:
        """Return the number of DataLoader workers that reads an epoch fastest."""
        seconds = {}
        for workers in choices:
            order = _BatchSampler()
            order.batches = [[(int(row), 1) for row in batch] for batch in padded(files.train, config.batch_size)]
            loader = DataLoader(
                _Images(files, config.augmentation, 0),
                batch_sampler=order,  # type: ignore[arg-type]
                num_workers=workers,
                persistent_workers=workers > 0,
            )
            list(loader)  # the first pass starts the workers
            started = time.perf_counter()
            list(loader)
            seconds[workers] = time.perf_counter() - started
        return min(seconds, key=lambda workers: seconds[workers])


def optimizer_of(model: TransferModel, config: TrialConfig) -> torch.optim.Optimizer:
    """Return AdamW for the head and the last stages, without weight decay on biases and normalisation.

    Freezes the other stages.
    """
    stages = list(model.stages.values())
    frozen, training = stages[: len(stages) - config.unfreeze_depth], stages[len(stages) - config.unfreeze_depth :]
    for stage in frozen:
        stage.requires_grad_(False)
    groups = []
    for modules, rate in ((training, config.backbone_lr), ([model.head], config.head_lr)):
        parameters = [p for module in modules for p in module.parameters()]
        for decays in (True, False):
            chosen = [p for p in parameters if (p.ndim > 1) == decays]
            if chosen:
                decay = config.weight_decay if decays else 0.0
                groups.append({"params": chosen, "weight_decay": decay, "peak": rate})
    return torch.optim.AdamW(groups)
