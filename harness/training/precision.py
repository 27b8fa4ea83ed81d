"""The arithmetic of a model: plain float32, or bfloat16 and channels_last if a probe measures that they are faster.

`exact` is float32 everywhere, on a GPU without TF32. On a CPU every number is then bit-identical to those of a plain
training loop. `auto` chooses for each backbone and for each kind of pass, because the best choice differs: on the same
CPU, bfloat16 is twice as fast as float32 for a ResNet, and slower for EfficientNet-B0. The choices are stored in a
file, so that all trials on this machine use the same arithmetic, and each trial's record names its choice.
"""

from __future__ import annotations

import copy
import json
import platform
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from filelock import FileLock
from torch import Tensor, nn

from harness.atomic import atomic_write, disk_errors
from harness.model.transfer import TransferModel

Precision = Literal["exact", "auto"]
PROBE_SECONDS = 2.0  # for all candidates together, for each backbone and kind of pass
MAX_SLOWDOWN = 3.0  # on a part of a batch, against float32; a slower candidate is not measured on whole batches
MIN_SPEEDUP = 1.1  # against float32; a candidate that gains less is not worth its rounding


@dataclass(frozen=True)
class Arithmetic:
    """The arithmetic of one kind of pass of one backbone."""

    bfloat16: bool = False  # by autocast: convolutions and matrix products; sums, norms and weights stay float32
    channels_last: bool = False  # memory order of images and activations

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return the context manager in which a forward pass runs."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.bfloat16, cache_enabled=False)

    def arrange(self, x: Tensor) -> Tensor:
        """Return images or activations in this memory order."""
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last and x.ndim == 4 else x

    def __str__(self) -> str:
        return ("bfloat16" if self.bfloat16 else "float32") + (" channels_last" if self.channels_last else "")


FLOAT32 = Arithmetic()
BFLOAT16_CHANNELS_LAST = Arithmetic(bfloat16=True, channels_last=True)
CANDIDATES = (FLOAT32, Arithmetic(channels_last=True), Arithmetic(bfloat16=True), BFLOAT16_CHANNELS_LAST)


@dataclass(frozen=True)
class Choice:
    """The arithmetic of a backbone: `forward` for passes without gradients, `training` for training passes."""

    forward: Arithmetic = FLOAT32
    training: Arithmetic = FLOAT32

    def __str__(self) -> str:
        if self.forward == self.training:
            return str(self.training)
        return f"{self.training}, forward passes {self.forward}"


EXACT = Choice()


def resolve_precision(precision: Precision | None, device: str) -> Precision:
    """Return the study's precision; if it has none, `exact` on a CPU and `auto` on other devices."""
    return precision or ("exact" if device.startswith("cpu") else "auto")


def set_precision(precision: Precision) -> None:
    """Set torch's global switches of this process: `exact` turns TF32 and nondeterministic cuDNN kernels off."""
    exact = precision == "exact"
    torch.backends.cudnn.allow_tf32 = not exact
    torch.backends.cuda.matmul.allow_tf32 = not exact
    torch.backends.cudnn.deterministic = exact


class Chooser:
    """Chooses the arithmetic of each backbone by a probe, and stores the choice.

    Args:
        file: the file of all choices; None keeps them in this process only.
    """

    def __init__(self, precision: Precision = "exact", file: Path | None = None) -> None:
        self.precision, self._file = precision, file
        self._known: dict[str, Choice] = {}

    def choose(self, model: TransferModel, side: int, batch_size: int, device: torch.device) -> Choice:
        """Return the arithmetic for a backbone at this image and batch size. The first call takes a few seconds.

        Args:
            model: it is not changed.
            side: pixels a side of the images.
            batch_size: images in one pass.
        """
        if self.precision == "exact":
            return EXACT
        key = _key(model, side, batch_size, device)
        if key not in self._known:
            with self._stored() as stored:
                if key not in stored:
                    stored[key] = asdict(probe(model, side, batch_size, device))
                self._known[key] = Choice(*(Arithmetic(**stored[key][name]) for name in ("forward", "training")))
        return self._known[key]

    @contextmanager
    def _stored(self) -> Iterator[dict[str, Any]]:
        """Give the file's content, and write it back if it grew. The file is locked, so that only one worker probes."""
        if self._file is None:
            yield {}
            return
        with disk_errors(self._file):
            self._file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self._file.with_suffix(".lock")):
            try:
                stored = json.loads(self._file.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                stored = {}
            before = len(stored)
            yield stored
            if len(stored) > before:
                atomic_write(self._file, json.dumps(stored, indent=1).encode())


def probe(model: TransferModel, side: int, batch_size: int, device: torch.device) -> Choice:
    """Time every candidate, in turns, for forward and for training passes, and return the fastest of each.

    A candidate's time is that of its fastest turn. Plain float32 is chosen unless another candidate is faster by the
    factor MIN_SPEEDUP.
    """
    images = torch.rand(batch_size, model.in_channels, side, side, device=device)
    labels = torch.zeros(batch_size, dtype=torch.long, device=device)
    chosen = []
    for training in (False, True):
        copies = _fast_enough({c: _copy(model, c, training) for c in CANDIDATES}, images, labels, training)
        best = dict.fromkeys(copies, float("inf"))
        ends = time.perf_counter() + PROBE_SECONDS
        turn = 0
        while turn < 2 or time.perf_counter() < ends:
            for candidate, network in copies.items():
                started = now(device)
                _pass(network, candidate, images, labels, training)
                if turn > 0:  # the first turn is a warm-up
                    best[candidate] = min(best[candidate], now(device) - started)
            turn += 1
        fastest = min(best, key=lambda candidate: best[candidate])
        chosen.append(fastest if best[FLOAT32] / best[fastest] >= MIN_SPEEDUP else FLOAT32)
    return Choice(*chosen)


def _fast_enough(
    copies: dict[Arithmetic, nn.Module], images: Tensor, labels: Tensor, training: bool
) -> dict[Arithmetic, nn.Module]:
    """Leave out the candidates that are much slower than float32 on an eighth of the batch.

    A CPU that only emulates bfloat16 takes twenty times as long for it, and would be probed for half a minute with
    whole batches.
    """
    few = slice(0, max(len(images) // 8, 1))
    seconds = {}
    for candidate, network in copies.items():
        for _ in range(2):  # the first pass is a warm-up
            started = now(images.device)
            _pass(network, candidate, images[few], labels[few], training)
            seconds[candidate] = now(images.device) - started
    return {c: network for c, network in copies.items() if seconds[c] <= MAX_SLOWDOWN * seconds[FLOAT32]}


def _copy(model: TransferModel, arithmetic: Arithmetic, training: bool) -> nn.Module:
    network = copy.deepcopy(model)
    network.requires_grad_(training)
    network.eval()
    return network.to(memory_format=torch.channels_last) if arithmetic.channels_last else network


def _pass(network: nn.Module, arithmetic: Arithmetic, images: Tensor, labels: Tensor, training: bool) -> None:
    with torch.set_grad_enabled(training), arithmetic.autocast(images.device):
        logits = network(arithmetic.arrange(images))
    if training:
        F.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        network.zero_grad(set_to_none=True)


def now(device: torch.device) -> float:
    """Return a clock's seconds, after everything that was queued on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _key(model: TransferModel, side: int, batch_size: int, device: torch.device) -> str:
    channels = "" if model.in_channels == 3 else f" x {model.in_channels} channels"
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    cpu = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()} threads"
    return f"{model.backbone_name} {side} px{channels} x {batch_size}, {kind}, {cpu}, torch {torch.__version__}"
