"""WorkerCache: what the trials of one process share, that is initial models and cached activations of frozen stages.

Also the plan that says which activations are kept. `cache_plan.py` makes it, in the process that runs the study; this
module reads it, in a worker.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from harness.config import unfreezing
from harness.config.batchnorm_policy import POLICIES
from harness.config.trial import STAGES, TrialConfig
from harness.errors import ResourceError
from harness.seeds import derive
from harness.training.frozen_features.features import FeaturePipeline, FrozenFeatures, ViewFamily, reason_against
from harness.training.frozen_features.initial_models import InitialModel, InitialModels
from harness.training.frozen_features.input_pipeline import InputPipeline
from harness.training.precision import EXACT, Choice, Chooser
from harness.training.timing import Clock
from harness.training.trial_data import TrialData

MAX_OPEN_ENTRIES = 4  # cache entries whose files one process keeps open


@dataclass(frozen=True)
class CachedFeatures:
    """Activations that a study keeps. A cut is the number of stages before the activation, 1 to 5."""

    backbone: str
    batch_size: int
    views: str  # `flips` (also for `none`), or a recipe whose views belong to one split
    split: str | None  # the split whose seed the activations depend on; None: they are the same in every split
    recalibrated: bool  # whether BatchNorm statistics are re-estimated on the training images
    weights: str  # label of the initial weights
    cuts: tuple[int, ...]

    @property
    def key(self) -> CacheKey:
        """Everything but the cuts."""
        return self.backbone, self.batch_size, self.views, self.split, self.recalibrated, self.weights


CacheKey = tuple[str, int, str, str | None, bool, str]  # the fields of CachedFeatures except `cuts`


@dataclass(frozen=True)
class Plan:
    """Which activations are kept, and in which folder. With an empty plan, trials share no activations."""

    folder: Path | None = None
    kept: tuple[CachedFeatures, ...] = ()
    budget: int = 0  # bytes
    bytes: int = 0  # of everything that is kept, when all of it is written
    left_out: tuple[tuple[CacheKey, int, str], ...] = ()  # (key, cut, reason) of cuts that are not kept

    def cuts(self, key: CacheKey) -> tuple[int, ...]:
        """Return the cuts at which these activations are kept."""
        return next((k.cuts for k in self.kept if k.key == key), ())

    def reason(self, key: CacheKey, cut: int) -> str:
        """Return why a cut is not kept."""
        found = (why for other, at, why in self.left_out if (other, at) == (key, cut))
        return next(found, "the cache plan does not contain these activations")


def cache_key(config: TrialConfig, split: str, *, random_weights: bool) -> CacheKey:
    """Return what determines a trial's activations within one study.

    Args:
        split: name of the trial's split.
        random_weights: whether the backbone starts from random weights, which differ between splits.
    """
    right_angles = config.augmentation in ("none", "flips")
    recalibrated = POLICIES[config.batchnorm].recalibrates
    own = not right_angles or recalibrated or random_weights
    return (
        config.backbone,
        config.batch_size,
        "flips" if right_angles else config.augmentation,
        split if own else None,
        recalibrated,
        config.weights,
    )


class WorkerCache:
    """The initial models and activations that trials of one process share. It lives as long as the process."""

    def __init__(self, plan: Plan | None = None, chooser: Chooser | None = None) -> None:
        self.plan = plan or Plan()
        self.chooser = chooser or Chooser()
        self.models = InitialModels()
        self._open: dict[tuple[object, ...], FrozenFeatures] = {}
        self._stopped: str | None = None  # why nothing is kept any more: the error of a full disk

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
        """Return the pipeline of cached activations for the phase that begins with this epoch, or why there is none.

        If the activations at the trial's own cut are not kept, the pipeline reads those at the deepest kept cut before
        it, and the reason is returned as well.

        Args:
            seed: of the trial; the views are derived from it.
            split: name of the trial's split.
            initial: what the trial's model was made from.
        """
        own = unfreezing.frozen_prefix(config, epoch)
        key = cache_key(config, split, random_weights=initial.model.weights_name == "none")
        against = self._stopped or reason_against(config, epoch, own)
        if against is not None:
            return None, against
        kept = self.plan.cuts(key) if self.plan.folder is not None and data.source else ()
        cuts = [cut for cut in kept if cut <= own]
        if not cuts:
            return None, self.plan.reason(key, own)
        family = ViewFamily(config.augmentation, derive(seed, "views"))
        features = self._features(family, initial, data, config.batch_size, kept, device, choice)
        faults = {cut: features.fault(cut) for cut in cuts}
        sound = [cut for cut in cuts if faults[cut] is None]
        if not sound:
            return None, faults[max(cuts)]
        cut, reason = max(sound), None
        if cut < own:
            why = faults.get(own) or self.plan.reason(key, own)
            reason = f"reads the activations after {STAGES[cut - 1]} instead of {STAGES[own - 1]}: {why}"
        return FeaturePipeline(features, family, cut, data, clock, choice, device), reason

    def clear(self) -> None:
        """Drop all models and open files. Needed after a failed trial, which may have changed what it borrowed."""
        self.models = InitialModels()
        self._open.clear()

    def stop_keeping(self, error: ResourceError) -> str:
        """Stop keeping activations in this process, and return the reason for the records."""
        self._stopped = f"activations are kept no longer: {error}"
        return self._stopped

    def _features(
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
