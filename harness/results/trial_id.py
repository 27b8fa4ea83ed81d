"""The names of trials and of their attempts. No other file builds such a name or takes one apart.

The names are used in the event log, as tags of MLflow's runs, in Optuna's user attributes and for checkpoint files:

    fine_tuning/3                              slot 3 of the search
    confirmation/fine_tuning/<config key>/2    a configuration with the confirmation's seed 2
    controlled/fine_tuning/<config key>/2      a changed configuration with that seed
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
    """The name of a trial in its parts; `str` gives the name as the log holds it.

    Args:
        kind: the part of the study that the trial belongs to.
        strategy: the trial's strategy.
        slot: its slot in the search; for later trials the index of the confirmation's seed.
        config_key: `TrialConfig.key()` for trials after the search; None for search trials.
        fraction: fraction of the training images, for `data_size`, written with six significant digits; otherwise None.
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
        """Return the parts of a name that `str` made.

        Raises:
            ValueError: the text is not the name of a trial.
        """
        if found := _SEARCH.fullmatch(text):
            return cls("search", found[1], int(found[2]))
        found = _AFTER_SEARCH.fullmatch(text)
        if found is None or (found[1] == "data_size") != (found[5] is not None):
            raise ValueError(f"{text!r} is not the name of a trial")
        fraction = None if found[5] is None else float(found[5])
        return cls(cast(Kind, found[1]), found[2], int(found[4]), found[3], fraction)


def run_key(trial_id: str, attempt: int) -> str:
    """Return the key of one attempt of a trial. A second attempt, after a worker died, is another run in MLflow."""
    return f"{trial_id}#{attempt}"


def file_stem(trial_id: str) -> str:
    """Return the file name of a trial's files, without the suffix."""
    return trial_id.replace("/", "-")
