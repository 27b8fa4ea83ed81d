"""What trials of one process share: starting models, and activations of frozen stages where a plan keeps some."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from harness.config.batchnorm_policy import POLICIES
from harness.config.trial import STAGES, TrialConfig
from harness.errors import ResourceError
from harness.model import freezing
from harness.seeds import derive
from harness.training.frozen_features.features import FeaturePipeline, FrozenFeatures, ViewFamily, reason_against
from harness.training.frozen_features.initial_models import InitialModel, InitialModels
from harness.training.frozen_features.input_pipeline import InputPipeline
from harness.training.precision import EXACT, Choice, Chooser
from harness.training.timing import Clock
from harness.training.trial_data import TrialData

MAX_OPEN_ENTRIES = 4  # whose files one process holds open


@dataclass(frozen=True)
class CachedFeatures:
    """Activations that a study keeps, and at which cuts (stages before them, 1..5)."""

    backbone: str
    batch_size: int
    views: str  # `flips` (with `none`), or a recipe whose views belong to one split
    split: str | None  # where values or views belong to one split's seed; None: they are the same in every split
    recalibrated: bool
    cuts: tuple[int, ...]

    @property
    def key(self) -> CacheKey:
        return self.backbone, self.batch_size, self.views, self.split, self.recalibrated


CacheKey = tuple[str, int, str, str | None, bool]  # the fields of Kept but for the cuts


@dataclass(frozen=True)
class Plan:
    """What is kept where. Made by `cache_plan.py` within a budget; an empty plan shares nothing."""

    folder: Path | None = None
    kept: tuple[CachedFeatures, ...] = ()
    budget: int = 0  # bytes
    bytes: int = 0  # of everything that is kept, once all of it is there
    left_out: tuple[tuple[CacheKey, int, str], ...] = ()  # cuts that are not kept, and why

    def cuts(self, key: CacheKey) -> tuple[int, ...]:
        """The cuts that are kept of these activations."""
        return next((k.cuts for k in self.kept if k.key == key), ())

    def reason(self, key: CacheKey, cut: int) -> str:
        """Why a cut is not kept."""
        found = (why for other, at, why in self.left_out if (other, at) == (key, cut))
        return next(found, "the plan keeps no such activations")


def cache_key(config: TrialConfig, split: str, *, random_weights: bool) -> CacheKey:
    """What decides a trial's activations within a study."""
    right_angles = config.augmentation in ("none", "flips")
    recalibrated = POLICIES[config.batchnorm].recalibrates
    own = not right_angles or recalibrated or random_weights
    return (
        config.backbone,
        config.batch_size,
        "flips" if right_angles else config.augmentation,
        split if own else None,
        recalibrated,
    )


class WorkerCache:
    """Lives as long as its process."""

    def __init__(self, plan: Plan | None = None, chooser: Chooser | None = None) -> None:
        self.plan = plan or Plan()
        self.chooser = chooser or Chooser()
        self.models = InitialModels()
        self._open: dict[tuple[object, ...], FrozenFeatures] = {}
        self._full: str | None = None  # what the disk said; nothing is kept from then on

    def pipeline(
        self,
        config: TrialConfig,
        epoch: int,
        seed: int,
        split: str,
        data: TrialData,
        initial: InitialModel,
        clock: Clock,
        device: torch.device,
        choice: Choice = EXACT,
    ) -> tuple[InputPipeline | None, str | None]:
        """The pipeline of shared activations for the phase that this epoch opens, or why there is none.

        A trial whose own cut is not kept reads from the deepest one before it, and that is said too.
        """
        own = freezing.frozen_prefix(config, epoch)
        key = cache_key(config, split, random_weights=initial.model.weights_name == "none")
        against = self._full or reason_against(config, epoch, own)
        if against is not None:
            return None, against
        kept = self.plan.cuts(key) if self.plan.folder is not None and data.source else ()
        cuts = [cut for cut in kept if cut <= own]
        if not cuts:
            return None, self.plan.reason(key, own)
        family = ViewFamily(config.augmentation, derive(seed, "views"))
        prefix = self._prefix(family, initial, data, config.batch_size, kept, device, choice)
        faults = {cut: prefix.fault(cut) for cut in cuts}
        sound = [cut for cut in cuts if faults[cut] is None]
        if not sound:
            return None, faults[max(cuts)]
        cut, reason = max(sound), None
        if cut < own:
            why = faults.get(own) or self.plan.reason(key, own)
            reason = f"reads from behind {STAGES[cut - 1]}, not {STAGES[own - 1]}: {why}"
        return FeaturePipeline(prefix, family, cut, data, clock, choice, device), reason

    def clear(self) -> None:
        """Build and open everything anew from here on: what was lent may have been changed."""
        self.models = InitialModels()
        self._open.clear()

    def stop_keeping(self, error: ResourceError) -> str:
        """Keep nothing more in this process; the reason, as records give it."""
        self._full = f"activations are kept no longer: {error}"
        return self._full

    def _prefix(
        self,
        family: ViewFamily,
        initial: InitialModel,
        data: TrialData,
        batch_size: int,
        cuts: tuple[int, ...],
        device: torch.device,
        choice: Choice,
    ) -> FrozenFeatures:
        assert self.plan.folder is not None
        key = (initial.identity, data.source, family.name, batch_size, cuts, device, choice)
        if key not in self._open:
            while len(self._open) >= MAX_OPEN_ENTRIES:
                del self._open[next(iter(self._open))]
            self._open[key] = FrozenFeatures(
                self.plan.folder, initial, data, family, batch_size, cuts, device, choice.forward
            )
        return self._open[key]
