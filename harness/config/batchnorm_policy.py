"""The BatchNorm policies, one table: what trains, what happens to the running statistics, and what follows from it.

A new policy needs its name in `BatchNormPolicy`, its line in `POLICIES`, and its row in the docstring of
`harness.model.batchnorm`; everything else asks the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BatchNormPolicy = Literal["frozen", "fixed_stats", "updated_stats", "recalibrated", "train_mode"]
Statistics = Literal["kept", "updated_where_unfrozen", "updated_everywhere"]


@dataclass(frozen=True)
class Policy:
    """What one policy does to the BatchNorm layers of a model."""

    trains_affine: bool  # the weights and biases, in unfrozen stages
    statistics: Statistics  # what training does to the running mean and variance
    recalibrates: bool = False  # the statistics are re-estimated on the training images before epoch 1

    def updates(self, unfrozen: bool) -> bool:
        """Whether a stage, unfrozen or not, updates its statistics, and so normalises by the batch while it trains."""
        return self.statistics == "updated_everywhere" or (self.statistics == "updated_where_unfrozen" and unfrozen)

    @property
    def moves_buffers(self) -> bool:
        """Whether a trial's buffers may come to differ from those of the weights."""
        return self.recalibrates or self.statistics != "kept"

    @property
    def is_cacheable(self) -> bool:
        """Whether frozen stages give the same activations for an image, whatever images are beside it in the batch."""
        return not self.updates(unfrozen=False)

    @property
    def same_when_frozen(self) -> BatchNormPolicy:
        """The first policy that does the same while no stage is unfrozen."""
        return first_same(self, any_frozen=True, any_unfrozen=False)

    @property
    def same_when_unfrozen(self) -> BatchNormPolicy:
        """The first policy that does the same while every stage is unfrozen."""
        return first_same(self, any_frozen=False, any_unfrozen=True)

    def _effect(self, any_frozen: bool, any_unfrozen: bool) -> tuple[bool, ...]:
        """Equal for two policies that do the same to these stages."""
        return (
            self.recalibrates,
            any_frozen and self.updates(unfrozen=False),
            any_unfrozen and self.updates(unfrozen=True),
            any_unfrozen and self.trains_affine,
        )


# In the order in which they are offered; of several that do the same, the first one names them all.
POLICIES: dict[BatchNormPolicy, Policy] = {
    "frozen": Policy(trains_affine=False, statistics="kept"),
    "fixed_stats": Policy(trains_affine=True, statistics="kept"),
    "updated_stats": Policy(trains_affine=True, statistics="updated_where_unfrozen"),
    "recalibrated": Policy(trains_affine=True, statistics="kept", recalibrates=True),
    "train_mode": Policy(trains_affine=True, statistics="updated_everywhere"),
}


def first_same(policy: Policy, *, any_frozen: bool, any_unfrozen: bool) -> BatchNormPolicy:
    """The first policy of the table that trains the same tensors with the same buffers.

    Args:
        any_frozen: some stage is frozen, in some epoch.
        any_unfrozen: some stage is unfrozen, in some epoch.
    """
    effect = policy._effect(any_frozen, any_unfrozen)
    return next(name for name, other in POLICIES.items() if other._effect(any_frozen, any_unfrozen) == effect)
