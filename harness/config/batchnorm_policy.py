"""The table of BatchNorm policies: what trains, what happens to the running statistics, and what follows from it.

A new policy needs its name in `BatchNormPolicy`, its line in `POLICIES`, and its row in the docstring of
`harness.model.batchnorm`. Everything else is derived from the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BatchNormPolicy = Literal["frozen", "fixed_stats", "updated_stats", "recalibrated", "train_mode"]
Statistics = Literal["kept", "updated_where_unfrozen", "updated_everywhere"]


@dataclass(frozen=True)
class Policy:
    """The effect of one policy on the BatchNorm layers of a model."""

    trains_affine: bool  # the weights and biases, in unfrozen stages
    statistics: Statistics  # what training does to the running mean and variance
    recalibrates: bool = False  # whether the statistics are re-estimated on the training images before epoch 1

    def updates(self, unfrozen: bool) -> bool:
        """Return whether a stage updates its statistics, and so normalises by the batch's statistics in train mode."""
        return self.statistics == "updated_everywhere" or (self.statistics == "updated_where_unfrozen" and unfrozen)

    @property
    def moves_buffers(self) -> bool:
        """Whether a trial's buffers may become different from those of the starting weights."""
        return self.recalibrates or self.statistics != "kept"

    @property
    def is_cacheable(self) -> bool:
        """Whether a frozen stage's activations of an image are independent of the other images in the batch."""
        return not self.updates(unfrozen=False)

    def _effect(self, any_frozen: bool, any_unfrozen: bool) -> tuple[bool, ...]:
        """Return a value that is equal for two policies with the same effect on these stages."""
        return (
            self.recalibrates,
            any_frozen and self.updates(unfrozen=False),
            any_unfrozen and self.updates(unfrozen=True),
            any_unfrozen and self.trains_affine,
        )


# The order decides which name is used for policies with the same effect: the first one.
POLICIES: dict[BatchNormPolicy, Policy] = {
    "frozen": Policy(trains_affine=False, statistics="kept"),
    "fixed_stats": Policy(trains_affine=True, statistics="kept"),
    "updated_stats": Policy(trains_affine=True, statistics="updated_where_unfrozen"),
    "recalibrated": Policy(trains_affine=True, statistics="kept", recalibrates=True),
    "train_mode": Policy(trains_affine=True, statistics="updated_everywhere"),
}


def first_same(policy: Policy, *, any_frozen: bool, any_unfrozen: bool) -> BatchNormPolicy:
    """Return the first policy of the table that trains the same tensors and leaves the same buffers.

    Args:
        any_frozen: whether some stage is frozen in some epoch.
        any_unfrozen: whether some stage is unfrozen in some epoch.
    """
    effect = policy._effect(any_frozen, any_unfrozen)
    return next(name for name, other in POLICIES.items() if other._effect(any_frozen, any_unfrozen) == effect)
