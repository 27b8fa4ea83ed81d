"""The configurations that the confirmation trained over the same seeds, compared seed by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from harness.analysis.statistics import holm_levels
from harness.config.parameters import PARAMETERS
from harness.results.metrics import sign_of
from harness.results.records import TrialRecord
from harness.results.study_state import of_kind

FEWEST = 3  # configurations; winner and default alone are shown in the table of strategies
PANELS = 3  # the largest number of values of a parameter that are drawn side by side


@dataclass(frozen=True)
class Confirmed:
    """One configuration and its best validation score at each seed, in the order of the seeds."""

    values: Mapping[str, Any]  # the parameters in which the configurations differ
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean score over the seeds."""
        return float(np.mean(self.scores))


@dataclass(frozen=True)
class Group:
    """The confirmed configurations of one strategy that share their seeds, the best first."""

    strategy: str
    parameters: tuple[str, ...]  # the parameters that differ, in the order of PARAMETERS
    members: tuple[Confirmed, ...]
    clearly_worse: tuple[bool, ...]  # whether each of the other members is clearly worse than the first

    @property
    def panels(self) -> str | None:
        """The parameter to draw side by side, or None.

        It is the one with the fewest values of several, if there are all combinations of values.
        """
        counts = {parameter: len({m.values[parameter] for m in self.members}) for parameter in self.parameters}
        if len(counts) < 2 or len(self.members) != np.prod(list(counts.values())):
            return None
        parameter = min(reversed(counts), key=lambda name: counts[name])
        return parameter if counts[parameter] <= PANELS else None


def groups(records: Sequence[TrialRecord], objective: str) -> list[Group]:
    """Return a group for each strategy in which FEWEST configurations or more completed two seeds or more.

    A configuration that completed fewer seeds than another one is left out.
    """
    made = []
    for strategy in dict.fromkeys(record.strategy for record in of_kind(records, "confirmation")):
        own = [record for record in of_kind(records, "confirmation") if record.strategy == strategy]
        by_config: dict[str, dict[int, TrialRecord]] = {}
        for record in own:
            if record.state == "complete" and record.score is not None:
                by_config.setdefault(record.config.key(), {})[record.slot] = record
        most = max((len(runs) for runs in by_config.values()), default=0)
        kept = [dict(sorted(runs.items())) for runs in by_config.values() if len(runs) == most]
        if len(kept) >= FEWEST and most >= 2:
            made.append(_group(strategy, kept, objective))
    return made


def _group(strategy: str, kept: list[dict[int, TrialRecord]], objective: str) -> Group:
    configs = [next(iter(runs.values())).config.to_json() for runs in kept]
    parameters = tuple(name for name in PARAMETERS if len({str(config[name]) for config in configs}) > 1)
    sign = sign_of(objective)
    members = sorted(
        (
            Confirmed(
                {name: config[name] for name in parameters}, tuple(float(run.score or 0.0) for run in runs.values())
            )
            for config, runs in zip(configs, kept, strict=True)
        ),
        key=lambda member: sign * member.mean,
        reverse=True,
    )
    return Group(strategy, parameters, tuple(members), _clearly_worse(members, sign))


def _clearly_worse(members: Sequence[Confirmed], sign: int) -> tuple[bool, ...]:
    """Test each member against the first by a paired t-test, read at Holm's levels."""
    best, others = members[0], members[1:]
    p_values = []
    for other in others:
        apart = sign * (np.array(best.scores) - np.array(other.scores))
        # The same difference at every seed is chance in a coarse score; a t-test would read it as certainty.
        p = 1.0 if np.ptp(apart) < 1e-9 else float(stats.ttest_1samp(apart, 0).pvalue)
        p_values.append(p)
    levels = holm_levels(p_values)
    return tuple(p < 1 - level for p, level in zip(p_values, levels, strict=True))
