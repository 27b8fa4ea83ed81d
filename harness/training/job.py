"""What a worker is asked to train, and whom it tells of every epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.config.trial import TrialConfig
from harness.results.records import EpochRecord, Kind


@dataclass(frozen=True)
class TrialJob:
    """What a worker is asked to train."""

    trial_id: str
    kind: Kind
    strategy: str
    slot: int
    config: TrialConfig
    seed: int  # order, views, initialisation and suffix randomness all derive from it
    split: str  # name of the split it trains on
    attempt: int = 1


OnEpoch = Callable[[EpochRecord], bool]  # True: go on, False: prune
