"""Which names a study may have: the rule for its letters, and the names of the harness's own files and folders.

A study's name is the name of its folder in HARNESS_HOME, of its page's folder among the reports, and of its lock. A
study that was named like one of the harness's own things there would share it: `harness rm` would delete the models of
every study, or the study would wait for ever for a lock that it holds itself.
"""

from __future__ import annotations

import re

from harness.errors import ConfigError

NAME_RULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# In HARNESS_HOME (see `results.paths`): folders of all studies. Among the reports: folders of what is no study.
_OWN = frozenset({"artifacts", "cache", "locks", "examples", "benchmarks", "calibration"})
# Databases and what stands beside them (mlflow.db-wal, mlflow-server.log), and the locks of both stores.
_OWN_BEGINNINGS = ("mlflow", "optuna")


def is_own(name: str) -> bool:
    """Whether the harness or one of its libraries keeps something under this name.

    Upper and lower case count as equal, because many file systems do not tell them apart.
    """
    folded = name.casefold()
    return folded in _OWN or folded.startswith(_OWN_BEGINNINGS)


def is_study_name(name: str) -> bool:
    """Whether a study may have this name."""
    return NAME_RULE.fullmatch(name) is not None and not is_own(name)


def check_letters(name: str, what: str = "a study's name") -> None:
    """Refuse a name that breaks NAME_RULE with a ConfigError; `what` names it there: `AS`, or "a study's name"."""
    if not NAME_RULE.fullmatch(name):
        raise ConfigError(
            f"{what} may have letters, digits, '.', '_' and '-' (64 at most, a letter or digit first), but got {name!r}"
        )


def check_study_name(name: str, what: str = "a study's name") -> None:
    """Refuse a name that no study may have: it breaks NAME_RULE, or belongs to the harness.

    Raises:
        ConfigError: with `what` before the name, see `check_letters`.
    """
    check_letters(name, what)
    if is_own(name):
        raise ConfigError(
            f"{what} must not be {name!r}: the harness keeps files of all studies under the names "
            f"{', '.join(sorted(_OWN))}, mlflow… and optuna…, in upper and lower case; take another name (AS=newname)."
        )
