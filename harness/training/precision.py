"""In what arithmetic a model computes: float32 as it stands, or bfloat16 and channels_last where a probe says it pays.

`exact` is float32 everywhere (on a GPU without TF32): on a CPU every number is bit-identical to the plain loop's.
`auto` lets each (backbone, pass) choose: bfloat16 is twice as fast for a ResNet and slower than float32 for
EfficientNet-B0, on the same CPU. What was chosen is remembered, so that all trials of a home compute alike, and stands
in each record.
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
PROBE_SECONDS = 2.0  # for each backbone and pass, over all candidates
MAX_SLOWDOWN = 3.0  # times float32's seconds on a part of a batch: such a candidate is not tried on whole ones
MIN_SPEEDUP = 1.1  # how much faster than float32 a candidate must be to be worth its rounding


@dataclass(frozen=True)
class Arithmetic:
    """How one pass of one backbone computes."""

    bfloat16: bool = False  # autocast: convolutions and matrix products; sums, norms and the weights stay float32
    channels_last: bool = False  # memory order of images and activations

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """The context a forward pass runs in."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.bfloat16, cache_enabled=False)

    def arrange(self, x: Tensor) -> Tensor:
        """Images or activations in this order."""
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last and x.ndim == 4 else x

    def __str__(self) -> str:
        return ("bfloat16" if self.bfloat16 else "float32") + (" channels_last" if self.channels_last else "")


FLOAT32 = Arithmetic()
BFLOAT16_CHANNELS_LAST = Arithmetic(bfloat16=True, channels_last=True)
CANDIDATES = (FLOAT32, Arithmetic(channels_last=True), Arithmetic(bfloat16=True), BFLOAT16_CHANNELS_LAST)


@dataclass(frozen=True)
class Choice:
    """The arithmetic of a backbone's frozen and evaluating passes, and of its training passes."""

    forward: Arithmetic = FLOAT32
    training: Arithmetic = FLOAT32

    def __str__(self) -> str:
        if self.forward == self.training:
            return str(self.training)
        return f"{self.training}, forward passes {self.forward}"


EXACT = Choice()


def resolve_precision(precision: Precision | None, device: str) -> Precision:
    """`exact` on a CPU and `auto` elsewhere, where a study does not say."""
    return precision or ("exact" if device.startswith("cpu") else "auto")


def set_precision(precision: Precision) -> None:
    """Let this process compute so; TF32 is no float32."""
    exact = precision == "exact"
    torch.backends.cudnn.allow_tf32 = not exact
    torch.backends.cuda.matmul.allow_tf32 = not exact
    torch.backends.cudnn.deterministic = exact


class Chooser:
    """Probes a backbone once and remembers what came out.

    Args:
        notes: the file of all choices; None remembers within this process only.
    """

    def __init__(self, precision: Precision = "exact", notes: Path | None = None) -> None:
        self.precision, self._notes = precision, notes
        self._known: dict[str, Choice] = {}

    def choose(self, model: TransferModel, side: int, batch_size: int, device: torch.device) -> Choice:
        """The arithmetic for a backbone at this size; the first call takes a few seconds.

        Args:
            model: is not changed.
        """
        if self.precision == "exact":
            return EXACT
        key = _key(model.backbone_name, side, batch_size, device)
        if key not in self._known:
            with self._shared() as noted:
                if key not in noted:
                    noted[key] = asdict(probe(model, side, batch_size, device))
                self._known[key] = Choice(*(Arithmetic(**noted[key][name]) for name in ("forward", "training")))
        return self._known[key]

    @contextmanager
    def _shared(self) -> Iterator[dict[str, Any]]:
        """The file's content, written back if it grew; under its lock, so that workers probe one after the other."""
        if self._notes is None:
            yield {}
            return
        with disk_errors(self._notes):
            self._notes.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self._notes.with_suffix(".lock")):
            try:
                noted = json.loads(self._notes.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                noted = {}
            before = len(noted)
            yield noted
            if len(noted) > before:
                atomic_write(self._notes, json.dumps(noted, indent=1).encode())


def probe(model: TransferModel, side: int, batch_size: int, device: torch.device) -> Choice:
    """Time each candidate for a forward and for a training pass, taking turns; the fastest by the fastest of its turns.

    float32 as it stands keeps its place unless another is faster by `MIN_SPEEDUP`.
    """
    images = torch.rand(batch_size, 3, side, side, device=device)
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
                if turn > 0:  # the first one warms up
                    best[candidate] = min(best[candidate], now(device) - started)
            turn += 1
        fastest = min(best, key=lambda candidate: best[candidate])
        chosen.append(fastest if best[FLOAT32] / best[fastest] >= MIN_SPEEDUP else FLOAT32)
    return Choice(*chosen)


def _fast_enough(
    copies: dict[Arithmetic, nn.Module], images: Tensor, labels: Tensor, training: bool
) -> dict[Arithmetic, nn.Module]:
    """Without those that lose at once on an eighth of the batch: a CPU that only emulates bfloat16 takes twenty times
    as long for it, and whole batches would be half a minute of probing."""
    few = slice(0, max(len(images) // 8, 1))
    seconds = {}
    for candidate, network in copies.items():
        for _ in range(2):  # the first one warms up
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
    """Seconds on a clock, with everything done that the device was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _key(backbone: str, side: int, batch_size: int, device: torch.device) -> str:
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    cpu = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()} threads"
    return f"{backbone} {side} px x {batch_size}, {kind}, {cpu}, torch {torch.__version__}"
