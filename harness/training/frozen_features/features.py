"""FrozenFeatures: activations of the frozen stages, computed once and read by every trial with the same weights.

A *cut* is a place between two stages; its number is the number of stages before it, 1 to 5. A trial may read the
activations at a cut instead of running the stages before it, if this changes no bit of its results. `reason_against`
checks what follows from the configuration. The rest is measured on the machine (`FrozenFeatures.probe`): the stages
must give the same bits for an image whatever other images are in its batch, and the rest of the model must give the
same bits for stored activations.

    condition                                                  checked by
    nothing before the cut trains, decays or is averaged       unfreezing.frozen_prefix, the contract at each end
    BatchNorm before the cut normalises by fixed statistics    reason_against (policy)
    nothing before the cut is random                           frozen stages are in eval mode (TransferModel.train)
    a view is a function of (seed, epoch, image)               reason_against (mixing, repeated images)
    one batch shape, the same threads and kernels              identity
    the stored values are the computed ones                    a checksum for each row, dtype and strides (Boundary)
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
from harness.model.backbones import source_of
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
VERSION = 1  # of the stored values: raise it if the same inputs give other values
PLAIN = 0  # number of the view that is not augmented


@dataclass(frozen=True)
class ViewFamily:
    """The augmented views that trials of one recipe can share, and their numbers.

    View 0 is always the image itself. The recipes `none` and `flips` are one family: views 1 to 7 are the other
    rotations by right angles and their mirror images. With the other recipes, the number of a view is its epoch.
    """

    recipe: Augmentation
    seed: int  # from which the views are derived

    @property
    def name(self) -> str:
        """Return a name that is the same for families whose views are the same."""
        return "flips" if self._right_angles else f"{self.recipe}/{self.seed}"

    @property
    def _right_angles(self) -> bool:
        return self.recipe in ("none", "flips")

    def numbers(self, epoch: int, keys: NDArray[np.uint64], occurrence: Rows) -> Rows:
        """Return the numbers of the views that images with these keys have in an epoch, (N,).

        `occurrence`, (N,), counts how often the image came before in this epoch.
        """
        if self.recipe == "none":
            return np.full(len(keys), PLAIN, np.int64)
        if self.recipe == "flips":
            return augmentation.draw("flips", self.seed, epoch, keys, occurrence)[:, 0].astype(np.int64)
        return np.full(len(keys), epoch, np.int64)

    def render(self, images: Tensor, keys: NDArray[np.uint64], numbers: Rows) -> Tensor:
        """Return the views with these numbers, (B, C, S, S), of images of that shape in [0, 1]."""
        if self._right_angles:
            return augmentation.apply("flips", images, numbers[:, None].astype(np.float64))
        out = images.clone()
        for epoch in np.unique(numbers[numbers != PLAIN]).tolist():
            indices = torch.from_numpy(np.flatnonzero(numbers == epoch)).to(images.device)
            drawn = augmentation.draw(self.recipe, self.seed, epoch, keys[numbers == epoch], channels=images.shape[1])
            out[indices] = augmentation.apply(self.recipe, images[indices], drawn)
        return out


def reason_against(config: TrialConfig, epoch: int, cut: int) -> str | None:
    """Return why a trial's configuration forbids it to read shared activations in an epoch; None if it does not.

    Args:
        cut: `unfreezing.frozen_prefix` of the configuration and this epoch, 0 to 5.
    """
    if cut == 0:
        return "the stem trains"
    if not POLICIES[config.batchnorm].is_cacheable:
        return f"{config.batchnorm} normalises frozen stages by the batch's statistics"
    if config.mixup > 0 or config.cutmix > 0:
        return "mixup and CutMix mix images before the backbone"
    if config.imbalance == "balanced_sampling" and config.augmentation not in ("none", "flips"):
        return f"balanced_sampling repeats images, and {config.augmentation} draws another view each time"
    return None


def identity(
    initial: InitialModel,
    data: TrialData,
    family: ViewFamily,
    batch_size: int,
    arithmetic: Arithmetic,
    device: torch.device,
) -> dict[str, Any]:
    """Return everything that determines the bits of the activations, by name. Its digest names the cache entry."""
    model = initial.model
    library = source_of(model.backbone_name).version(model.backbone_name)
    values = {
        "version": VERSION,
        "images": data.source,
        "side": data.images.shape[1],
        "backbone": model.backbone_name,
        "weights": initial.identity,
        "mean": model.mean,  # one number for each channel, so that it says how many there are
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
    return values | ({"library": library} if library else {})


class FrozenFeatures:
    """The shared activations of one initial model, one batch shape and one family of views.

    Args:
        folder: folder of all cache entries; this entry is a folder in it, named by a digest of its identity.
        cuts: the cuts at which activations are kept, 1 to 5. One forward pass computes all of them.
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
        self._store.update_meta(lambda meta: meta.setdefault("identity", values))
        self._ensured: set[bytes] = set()  # digests of the arguments of earlier calls of `ensure`

    def fault(self, cut: int) -> str | None:
        """Return why sharing activations at a cut would change bits on this machine; None if it changes none.

        The first call for an entry runs `probe`; the results are stored in the entry's metadata.
        """
        if str(cut) not in self._store.meta.get("faults", {}):
            boundaries, faults = self.probe()

            def add(meta: dict[str, Any]) -> None:
                meta.setdefault("boundaries", {}).update(describe(boundaries))
                meta.setdefault("faults", {}).update({str(c): fault for c, fault in faults.items()})

            self._store.update_meta(add)
        found: str | None = self._store.meta["faults"][str(cut)]
        return found

    def probe(self) -> tuple[dict[int, Boundary], dict[int, str | None]]:
        """Run one batch of training images as a trial would, and again in another order, and compare at each cut.

        Returns:
            By cut: the memory layout of the activations, and why they cannot be shared (None if they can).
        """
        rows = np.resize(self._data.train, self._batch_size)
        numbers = self.family.numbers(1, self._data.keys[rows], np.zeros_like(rows))
        other = np.arange(len(rows))[::-1]  # the batch in reverse order
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
                fault = "the batch is not the outermost dimension of the activations in memory"
            elif stored.stride() != x.stride() or not torch.equal(stored, x):
                fault = "an image's activations depend on the other images of the batch"
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
        """Return the activations at each cut from one forward pass; add the seconds of each stage to `seconds`."""
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
        """Compute the activations of these (image, view) pairs that are missing, at every cut.

        If another process is computing activations of this entry, wait for it.

        Raises:
            ContractError: a trial changed the stages it had borrowed, so nothing can be computed with them.
            ResourceError: the disk is full.
        """
        call = hashlib.sha256(rows.tobytes() + numbers.tobytes()).digest()
        if call in self._ensured:  # by an earlier trial of this process in the same epoch
            return
        self._compute(rows, numbers)
        self._ensured.add(call)

    def _compute(self, rows: Rows, numbers: Rows) -> None:
        rows, numbers = self._missing(rows, numbers)
        if not len(rows):
            return
        with self._store.lock:
            rows, numbers = self._missing(rows, numbers)  # another worker may just have computed them
            seconds = [0.0] * (DEPTH_MAX + 1)  # of rendering, then of each stage
            contract.check_unchanged(self._model, self._reference)  # trials borrow its stages
            self._model.eval()
            for start in range(0, len(rows), self._batch_size):
                real = slice(start, start + self._batch_size)
                # Padded to the one batch shape, because several backbones give other bits with another shape.
                batch, batch_numbers = (np.resize(part[real], self._batch_size) for part in (rows, numbers))
                started = now(self._device)
                inputs = self._inputs(batch, batch_numbers)
                seconds[0] += now(self._device) - started
                for cut, x in self._taps(inputs, seconds=seconds).items():
                    count = len(rows[real])
                    self._store.write(cut, numbers[real], rows[real], x[:count])
            self._add_rates(len(rows), seconds)

    def _missing(self, rows: Rows, numbers: Rows) -> tuple[Rows, Rows]:
        """Return the distinct pairs whose activations are missing at some cut."""
        pairs = np.unique(np.stack([numbers.ravel(), rows.ravel()]), axis=1)
        lacking = np.zeros(pairs.shape[1], bool)
        for view in np.unique(pairs[0]).tolist():
            indices = np.flatnonzero(pairs[0] == view)
            for cut in self.cuts:
                lacking[indices] |= ~self._store.has(cut, view, pairs[1][indices])
        return pairs[1][lacking], pairs[0][lacking]

    def _add_rates(self, images: int, seconds: list[float]) -> None:
        def add(meta: dict[str, Any]) -> None:
            before = meta.get("seconds", [0.0] * len(seconds))
            meta["seconds"] = [a + b for a, b in zip(before, seconds, strict=True)]
            meta["images"] = meta.get("images", 0) + images

        self._store.update_meta(add)

    def seconds_an_image(self, cut: int) -> float:
        """Return the measured mean time that the stages before a cut take for one image; 0 if nothing was computed."""
        meta = self._store.meta
        return float(sum(meta["seconds"][: cut + 1]) / meta["images"]) if meta.get("images") else 0.0

    def read(self, cut: int, rows: Rows, numbers: Rows) -> Tensor:
        """Return the activations (B, ...) of pairs for which `ensure` was called."""
        return self._store.read(cut, numbers, rows, self._device)


class FeaturePipeline:
    """The input pipeline that reads shared activations and runs the rest of the model.

    Args:
        features: the activations.
        family: views of the trial's own recipe. `features` may have been opened for another recipe of the same family.
        cut: the cut at which the rest of the model begins.
        clock: counts the time spent on shared work, and the shared work that the trial used.
    """

    def __init__(
        self,
        features: FrozenFeatures,
        family: ViewFamily,
        cut: int,
        data: TrialData,
        clock: Clock,
        choice: Choice = EXACT,
        device: torch.device = CPU,
    ) -> None:
        self._features, self._family, self._cut, self._data = features, family, cut, data
        self._choice, self._device = choice, device
        self._clock = clock
        self._numbers: Mapping[int, Rows] = {}

    def begin(self, epoch: int, rows: Rows, occurrence: Rows) -> None:
        """Compute the missing activations of the epoch's views and of the validation images."""
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
                self._features.ensure(every, every_number)
            else:  # Only the plain view: later epochs need the images that do not fill this epoch's last batch.
                all_rows = np.concatenate([self._data.train, validation])
                self._features.ensure(all_rows, np.full(len(all_rows), PLAIN))
        self._clock.account.charge(self._family.name, self._features.seconds_an_image, self._cut, every, every_number)
        self._numbers = dict(enumerate(numbers))

    def inputs(self, epoch: int, step: int, rows: Rows, occurrence: Rows) -> tuple[Tensor, Mixed | None]:
        return self._features.read(self._cut, rows, self._numbers[step]), None

    def logits(self, model: TransferModel, inputs: Tensor) -> Tensor:
        return self._rest(model, inputs, self._choice.training)

    def evaluate(self, model: TransferModel, rows: Rows) -> Tensor:
        x = self._features.read(self._cut, rows, np.full(len(rows), PLAIN))
        return self._rest(model, x, self._choice.forward)

    def _rest(self, model: TransferModel, x: Tensor, arithmetic: Arithmetic) -> Tensor:
        with arithmetic.autocast(self._device):
            logits: Tensor = model(x if arithmetic.bfloat16 else x.float(), self._cut)
        return logits
