"""Initial models: the models that trials start from, built once in a process and used by many trials.

A stage that does not change in a trial is borrowed by the trial's model and not copied. This is safe because the
training contract compares every frozen tensor with the copy that is kept here, after each phase of each trial.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from harness.config.batchnorm_policy import POLICIES
from harness.config.initial_weights import Weights
from harness.config.trial import TrialConfig
from harness.config.unfreezing import unfrozen_stages
from harness.model import batchnorm
from harness.model.freezing import stage_of
from harness.model.transfer import TransferModel, build, new_head
from harness.seeds import derive
from harness.training.frozen_features.input_pipeline import Normalise
from harness.training.trial_data import TrialData

RECALIBRATION_BATCH = 64  # images
MAX_KEPT_BYTES = 1 << 30  # of models that are kept between trials; the newest model is always kept


@dataclass
class InitialModel:
    """A backbone before the first training step, shared by all trials that start from it. Its values never change."""

    model: TransferModel
    seconds: float  # that building it took
    reference: Mapping[str, Tensor] = field(init=False)  # a copy of every parameter and buffer of the stages
    identity: str = field(init=False)  # digest of the values of all stages, hexadecimal

    def __post_init__(self) -> None:
        tensors = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        self.reference = {name: t.detach().clone() for name, t in tensors.items() if stage_of(name) != "head"}
        digest = hashlib.sha256()
        for name, tensor in self.reference.items():
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        self.identity = digest.hexdigest()[:32]

    @property
    def bytes(self) -> int:
        """Return the memory of the stages and their copies."""
        return 2 * sum(tensor.numel() * tensor.element_size() for tensor in self.reference.values())


class InitialModels:
    """The initial models that this process has built and kept."""

    def __init__(self, kept_bytes: int = MAX_KEPT_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._models: OrderedDict[tuple[object, ...], InitialModel] = OrderedDict()

    def checkout(
        self,
        config: TrialConfig,
        seed: int,
        data: TrialData,
        weights: str | Weights,
        device: torch.device,
        micro_batch: int | None = None,
    ) -> tuple[TransferModel, InitialModel, bool]:
        """Return a model for one trial, with its weights and a new head; build the initial model if it is not kept.

        If the BatchNorm policy recalibrates, the initial model's statistics are re-estimated.

        Args:
            seed: of the trial. The head is drawn from it, and the backbone if its weights are random.
            micro_batch: images in one pass if memory is short; re-estimated statistics then differ by rounding.

        Returns:
            The trial's model, the initial model it was made from, and whether the initial model had been kept.
        """
        weights = Weights.of(weights)
        key = (
            config.backbone,
            data.images.shape[1],
            data.channels,
            weights,
            str(device),
            seed if weights.is_random else None,
            (data.source, data.train.tobytes(), micro_batch) if POLICIES[config.batchnorm].recalibrates else None,
        )
        was_cached = key in self._models
        if not was_cached:
            started = time.monotonic()
            plain = dataclasses.replace(config, head="linear", head_dropout=0.0)  # each trial gets its own head later
            model = build_for(plain, seed, data, weights).to(device)
            if POLICIES[config.batchnorm].recalibrates:
                _recalibrate(model, data, device, micro_batch)
            self._models[key] = InitialModel(model, time.monotonic() - started)
            self._evict()
        self._models.move_to_end(key)
        initial = self._models[key]
        return _borrowed(initial.model, config, seed, data.num_classes, device), initial, was_cached

    def _evict(self) -> None:
        while len(self._models) > 1 and sum(initial.bytes for initial in self._models.values()) > self._kept_bytes:
            self._models.popitem(last=False)


def build_for(config: TrialConfig, seed: int, data: TrialData, weights: str | Weights) -> TransferModel:
    """Build the model of a trial, with its weights and a new head."""
    return build(
        config.backbone,
        data.num_classes,
        weights,
        image_size=data.images.shape[1],
        in_channels=data.channels,
        seed=derive(seed, "initialisation"),
        head=config.head,
        head_hidden=config.head_hidden,
        head_dropout=config.head_dropout,
        head_init=config.head_init,
    )


def _borrowed(
    initial: TransferModel, config: TrialConfig, seed: int, num_classes: int, device: torch.device
) -> TransferModel:
    """Return a model with a new head that copies the stages that may change in this trial and borrows the others."""
    everything = POLICIES[config.batchnorm].updates(unfrozen=False)  # statistics change in frozen stages too
    changing = unfrozen_stages(config, config.epochs)
    head = new_head(
        initial.head,
        num_classes,
        derive(seed, "initialisation"),
        head=config.head,
        head_hidden=config.head_hidden,
        head_dropout=config.head_dropout,
        head_init=config.head_init,
    )
    return TransferModel(
        [
            (name, copy.deepcopy(stage) if everything or name in changing else stage)
            for name, stage in initial.stages.items()
        ],
        head.to(device),
        backbone_name=initial.backbone_name,
        num_classes=num_classes,
        image_size=initial.image_size,
        mean=initial.mean,
        std=initial.std,
        weights_name=initial.weights_name,
    )


def _recalibrate(model: TransferModel, data: TrialData, device: torch.device, micro_batch: int | None) -> None:
    """Re-estimate BatchNorm's statistics on the training images, without augmentation."""
    size = min(micro_batch or RECALIBRATION_BATCH, RECALIBRATION_BATCH)
    held = device if micro_batch is None else torch.device("cpu")  # the device that holds all images at once
    normalise = Normalise(model.mean, model.std, held)
    batches = [normalise(data.batch(data.train[i : i + size], held)) for i in range(0, len(data.train), size)]
    batchnorm.recalibrate(model, batches, batch_size=size)
