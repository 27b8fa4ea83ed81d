"""The frozen stages, computed once: every trial that starts from the same weights reads what they gave.

A trial may read what the stages before a *cut* gave, instead of running them, if that changes no bit of what it
computes. `reason_against` says why one may not; what it cannot know from the configuration is tried out on
the machine (`Prefix.probe`): the stages must give the same bits for an image whatever images stand beside it in
the batch, and the rest of the model the same bits for what was stored.

    condition                                                  checked by
    nothing before the cut trains, decays or is averaged       freezing.frozen_prefix, the contract at each phase's end
    BatchNorm before the cut normalises by fixed statistics    reason_against (policy)
    nothing before the cut is random                           frozen stages are in eval mode (TransferModel.train)
    a view is a function of (seed, epoch, image)               reason_against (mixing, repeated images)
    one batch shape, the same threads and kernels              identity
    the same values stored as computed                         a checksum a row, dtype and strides of the boundary
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.config.batchnorm_policy import POLICIES
from harness.config.parameters import Augmentation
from harness.config.trial import DEPTH_MAX, TrialConfig
from harness.data import augmentation
from harness.model.transfer import TransferModel
from harness.training import contract
from harness.training.frozen_features.initial_models import InitialModel
from harness.training.frozen_features.input_pipeline import Normalise, Rows
from harness.training.frozen_features.store import Activations, Boundary, describe
from harness.training.mixing import Mixed
from harness.training.precision import EXACT, FLOAT32, Arithmetic, Choice, now
from harness.training.timing import Clock
from harness.training.trial_data import TrialData

CPU = torch.device("cpu")
VERSION = 1  # of what is stored: raise it when the same inputs would give other values
PLAIN = 0  # the view that is not augmented


@dataclass(frozen=True)
class ViewFamily:
    """All views that trials of one recipe can share, and their numbers.

    `none` and `flips` are one family: 0 is the image itself, 1..7 are the other right angles and mirrorings. With the
    other recipes a view is number `epoch` of a seed, and 0 the image itself.
    """

    recipe: Augmentation
    seed: int  # of the views

    @property
    def name(self) -> str:
        return "flips" if self._right_angles else f"{self.recipe}/{self.seed}"

    @property
    def _right_angles(self) -> bool:
        return self.recipe in ("none", "flips")

    def numbers(self, epoch: int, keys: NDArray[np.uint64], occurrence: Rows) -> Rows:
        """Of the views that images with these keys show in an epoch."""
        if self.recipe == "none":
            return np.full(len(keys), PLAIN, np.int64)
        if self.recipe == "flips":
            return augmentation.draw("flips", self.seed, epoch, keys, occurrence)[:, 0].astype(np.int64)
        return np.full(len(keys), epoch, np.int64)

    def render(self, images: Tensor, keys: NDArray[np.uint64], numbers: Rows) -> Tensor:
        """(B, 3, S, S) images in [0, 1] -> their views of these numbers."""
        if self._right_angles:
            return augmentation.apply("flips", images, numbers[:, None].astype(np.float64))
        out = images.clone()
        for epoch in np.unique(numbers[numbers != PLAIN]).tolist():
            here = torch.from_numpy(np.flatnonzero(numbers == epoch)).to(images.device)
            drawn = augmentation.draw(self.recipe, self.seed, epoch, keys[numbers == epoch])
            out[here] = augmentation.apply(self.recipe, images[here], drawn)
        return out


def reason_against(config: TrialConfig, epoch: int, cut: int) -> str | None:
    """Why a trial may not read shared activations in an epoch, from its configuration alone; None: it may.

    Args:
        cut: `freezing.frozen_prefix` of that epoch.
    """
    if cut == 0:
        return "the stem trains"
    if not POLICIES[config.batchnorm].is_cacheable:
        return f"{config.batchnorm} normalises frozen stages by the batch"
    if config.mixup > 0 or config.cutmix > 0:
        return "mixup and CutMix mix images before the backbone"
    if config.imbalance == "balanced_sampling" and config.augmentation not in ("none", "flips"):
        return f"balanced_sampling repeats images, and each time {config.augmentation} draws another view"
    return None


def identity(
    initial: InitialModel,
    data: TrialData,
    family: ViewFamily,
    batch_size: int,
    arithmetic: Arithmetic,
    device: torch.device,
) -> dict[str, Any]:
    """Everything that decides the bits of the activations."""
    model = initial.model
    return {
        "version": VERSION,
        "images": data.source,
        "side": data.images.shape[1],
        "backbone": model.backbone_name,
        "weights": initial.identity,
        "mean": model.mean,
        "std": model.std,
        "views": family.name,
        "arithmetic": str(arithmetic),
        "batch size": batch_size,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,  # type: ignore[no-untyped-call]
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "instructions": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "mkldnn": bool(torch.backends.mkldnn.enabled),
    }


class FrozenFeatures:
    """The shared activations of one starting model, one batch shape and one family of views.

    Args:
        folder: of all such entries; this one's lies in it under its identity.
        cuts: where activations are kept: stages before them, 1..5. One pass taps them all.
    """

    def __init__(
        self,
        folder: Path,
        initial: InitialModel,
        data: TrialData,
        family: ViewFamily,
        batch_size: int,
        cuts: tuple[int, ...],
        device: torch.device,
        arithmetic: Arithmetic = FLOAT32,
    ) -> None:
        values = identity(initial, data, family, batch_size, arithmetic, device)
        name = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]
        self.cuts = tuple(sorted(cuts))
        self.family = family
        self._model, self._data, self._batch_size, self._device = initial.model, data, batch_size, device
        self._arithmetic, self._reference = arithmetic, initial.reference
        self._normalise = Normalise(initial.model.mean, initial.model.std, device)
        self._store = Activations(folder / name, len(data.images))
        self._store.note(lambda meta: meta.setdefault("identity", values))
        self._ensured: set[bytes] = set()  # digests of the pairs that were asked for together

    def fault(self, cut: int) -> str | None:
        """Why this machine cannot share at a cut without changing a bit; None: it can. Tried out once an entry."""
        if str(cut) not in self._store.meta.get("faults", {}):
            boundaries, faults = self.probe()

            def add(meta: dict[str, Any]) -> None:
                meta.setdefault("boundaries", {}).update(describe(boundaries))
                meta.setdefault("faults", {}).update({str(c): fault for c, fault in faults.items()})

            self._store.note(add)
        found: str | None = self._store.meta["faults"][str(cut)]
        return found

    def probe(self) -> tuple[dict[int, Boundary], dict[int, str | None]]:
        """Run one batch of training images as a trial would, and once more in another order; compare at each cut."""
        rows = np.resize(self._data.train, self._batch_size)
        numbers = self.family.numbers(1, self._data.keys[rows], np.zeros_like(rows))
        other = np.arange(len(rows))[::-1]  # every image in another place
        model = self._model
        model.eval()
        inputs = self._inputs(rows, numbers)
        straight, again = self._taps(inputs, grad=True), self._taps(self._inputs(rows[other], numbers[other]))
        with torch.enable_grad(), self._arithmetic.autocast(self._device):
            logits = model(inputs)
        boundaries, faults = {}, {}
        for cut in self.cuts:
            x = straight[cut]
            boundaries[cut] = boundary = Boundary.of(x)
            stored = boundary.to_tensor(boundary.to_array(again[cut])[np.argsort(other)], self._device)
            fault = None
            if boundary.order[0] != 0:
                fault = "its activations do not lie image by image"
            elif stored.stride() != x.stride() or not torch.equal(stored, x):
                fault = "an image's activations depend on the images beside it in the batch"
            else:
                with torch.enable_grad(), self._arithmetic.autocast(self._device):
                    if not torch.equal(model(stored, cut), logits):
                        fault = "the rest of the model does not give the same bits for stored activations"
            faults[cut] = fault
        return boundaries, faults

    def _inputs(self, rows: Rows, numbers: Rows) -> Tensor:
        images = self._data.batch(rows, self._device)
        return self._arithmetic.arrange(self._normalise(self.family.render(images, self._data.keys[rows], numbers)))

    def _taps(self, x: Tensor, *, grad: bool = False, seconds: list[float] | None = None) -> dict[int, Tensor]:
        """What lies at each cut, from one pass; adds the seconds of each stage."""
        taps: dict[int, Tensor] = {}
        with torch.set_grad_enabled(grad), self._arithmetic.autocast(self._device):
            for stage in range(max(self.cuts)):
                started = now(self._device)
                x = self._model.run_stages(x, stage, stage + 1)
                if seconds is not None:
                    seconds[stage + 1] += now(self._device) - started
                if stage + 1 in self.cuts:
                    taps[stage + 1] = x
        return taps

    def ensure(self, rows: Rows, numbers: Rows) -> None:
        """Compute what is missing of these (image, view) pairs, at every cut; waits for whoever is at it already.

        Raises:
            ContractError: a trial changed the stages that were lent to it; nothing is computed with them.
            ResourceError: the disk is full.
        """
        asked = hashlib.sha256(rows.tobytes() + numbers.tobytes()).digest()
        if asked in self._ensured:  # by an earlier trial of this process, at the same epoch
            return
        self._compute(rows, numbers)
        self._ensured.add(asked)

    def _compute(self, rows: Rows, numbers: Rows) -> None:
        rows, numbers = self._missing(rows, numbers)
        if not len(rows):
            return
        with self._store.lock:
            rows, numbers = self._missing(rows, numbers)  # another worker may just have computed them
            seconds = [0.0] * (DEPTH_MAX + 1)  # of rendering, then of each stage
            contract.check_unchanged(self._model, self._reference)  # its stages are lent to trials
            self._model.eval()
            for start in range(0, len(rows), self._batch_size):
                real = slice(start, start + self._batch_size)
                # Padded to the one batch shape: with another, several backbones give other bits.
                batch, batch_numbers = (np.resize(part[real], self._batch_size) for part in (rows, numbers))
                started = now(self._device)
                inputs = self._inputs(batch, batch_numbers)
                seconds[0] += now(self._device) - started
                for cut, x in self._taps(inputs, seconds=seconds).items():
                    count = len(rows[real])
                    self._store.write(cut, numbers[real], rows[real], x[:count])
            self._add_rates(len(rows), seconds)

    def _missing(self, rows: Rows, numbers: Rows) -> tuple[Rows, Rows]:
        """The distinct pairs that some cut lacks."""
        pairs = np.unique(np.stack([numbers.ravel(), rows.ravel()]), axis=1)
        lacking = np.zeros(pairs.shape[1], bool)
        for view in np.unique(pairs[0]).tolist():
            here = np.flatnonzero(pairs[0] == view)
            for cut in self.cuts:
                lacking[here] |= ~self._store.has(cut, view, pairs[1][here])
        return pairs[1][lacking], pairs[0][lacking]

    def _add_rates(self, images: int, seconds: list[float]) -> None:
        def add(meta: dict[str, Any]) -> None:
            before = meta.get("seconds", [0.0] * len(seconds))
            meta["seconds"] = [a + b for a, b in zip(before, seconds, strict=True)]
            meta["images"] = meta.get("images", 0) + images

        self._store.note(add)

    def seconds_an_image(self, cut: int) -> float:
        """What an image costs up to a cut, as measured whenever something was computed; 0 where nothing was."""
        meta = self._store.meta
        return float(sum(meta["seconds"][: cut + 1]) / meta["images"]) if meta.get("images") else 0.0

    def read(self, cut: int, rows: Rows, numbers: Rows) -> Tensor:
        """Activations (B, ...) of pairs that `ensure` has been called for."""
        return self._store.read(cut, numbers, rows, self._device)


class FeaturePipeline:
    """Feeds the last part of the model with shared activations.

    Args:
        clock: told what went into shared work, and what the trial used of it.
    """

    def __init__(
        self,
        prefix: FrozenFeatures,
        family: ViewFamily,
        cut: int,
        data: TrialData,
        clock: Clock,
        choice: Choice = EXACT,
        device: torch.device = CPU,
    ) -> None:
        self._prefix, self._family, self._cut, self._data = prefix, family, cut, data
        self._choice, self._device = choice, device
        self._clock = clock
        self._numbers: Mapping[int, Rows] = {}

    def begin(self, epoch: int, rows: Rows, occurrence: Rows) -> None:
        """Have the epoch's activations and those of the validation images at hand."""
        numbers = np.stack(
            [
                self._family.numbers(epoch, self._data.keys[batch], times)
                for batch, times in zip(rows, occurrence, strict=True)
            ]
        )
        validation = self._data.validation
        every = np.concatenate([rows.ravel(), validation])
        every_number = np.concatenate([numbers.ravel(), np.full(len(validation), PLAIN)])
        with self._clock.sharing():
            if numbers.any():
                self._prefix.ensure(every, every_number)
            else:  # one view: the images this epoch left out at its end are wanted by the next
                whole = np.concatenate([self._data.train, validation])
                self._prefix.ensure(whole, np.full(len(whole), PLAIN))
        self._clock.account.charge(self._family.name, self._prefix.seconds_an_image, self._cut, every, every_number)
        self._numbers = dict(enumerate(numbers))

    def inputs(self, epoch: int, step: int, rows: Rows, occurrence: Rows) -> tuple[Tensor, Mixed | None]:
        return self._prefix.read(self._cut, rows, self._numbers[step]), None

    def logits(self, model: TransferModel, inputs: Tensor) -> Tensor:
        return self._rest(model, inputs, self._choice.training)

    def evaluate(self, model: TransferModel, rows: Rows) -> Tensor:
        x = self._prefix.read(self._cut, rows, np.full(len(rows), PLAIN))
        return self._rest(model, x, self._choice.forward)

    def _rest(self, model: TransferModel, x: Tensor, arithmetic: Arithmetic) -> Tensor:
        with arithmetic.autocast(self._device):
            logits: Tensor = model(x if arithmetic.bfloat16 else x.float(), self._cut)
        return logits
