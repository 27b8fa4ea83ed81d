"""Names of trials and of their attempts. No other file builds such a name or takes one apart.

They stand in the event log, as tags of MLflow's runs, in Optuna's user attributes and in the names of checkpoints:

    fine_tuning/3                              slot 3 of the search
    confirmation/fine_tuning/<config key>/2    a configuration at the confirmation's seed 2
    controlled/fine_tuning/<config key>/2      a changed configuration at that seed
    data_size/fine_tuning/<config key>/2@0.5   the winner on half of that seed's training images
    fine_tuning/3#2                            the second attempt of a trial: see `run_key`
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

Kind = Literal["search", "confirmation", "controlled", "data_size"]

_AFTER_SEARCH = re.compile(r"(confirmation|controlled|data_size)/([^/]+)/([^/]+)/(\d+)(?:@([^/@]+))?")
_SEARCH = re.compile(r"([^/]+)/(\d+)")


@dataclass(frozen=True)
class TrialId:
    """Which trial of a study: as text, what stands in the log.

    Args:
        kind: the part of the study that the trial belongs to.
        strategy: whose trial it is.
        slot: its place in the search; after the search, the index of the confirmation's seed.
        config_key: `TrialConfig.key()`, after the search; None in it.
        fraction: of the training images, for `data_size`; its text has six significant digits. None for other kinds.
    """

    kind: Kind
    strategy: str
    slot: int
    config_key: str | None = None
    fraction: float | None = None

    def __str__(self) -> str:
        if self.kind == "search":
            return f"{self.strategy}/{self.slot}"
        share = "" if self.fraction is None else f"@{self.fraction:g}"
        return f"{self.kind}/{self.strategy}/{self.config_key}/{self.slot}{share}"

    @classmethod
    def parse(cls, text: str) -> TrialId:
        """Back from `str`.

        Raises:
            ValueError: the text names no trial.
        """
        if found := _SEARCH.fullmatch(text):
            return cls("search", found[1], int(found[2]))
        found = _AFTER_SEARCH.fullmatch(text)
        if found is None or (found[1] == "data_size") != (found[5] is not None):
            raise ValueError(f"{text!r} is not the name of a trial")
        fraction = None if found[5] is None else float(found[5])
        return cls(cast(Kind, found[1]), found[2], int(found[4]), found[3], fraction)


def run_key(trial_id: str, attempt: int) -> str:
    """Name one attempt of a trial: a second attempt, after a worker's death, is another run."""
    return f"{trial_id}#{attempt}"


def file_stem(trial_id: str) -> str:
    """What the files of a trial are called, without their ending."""
    return trial_id.replace("/", "-")
