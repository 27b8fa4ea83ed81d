"""The section on running the study again: command, sessions, environment, and the study file with all defaults."""

from __future__ import annotations

from typing import Any

import yaml

from harness.analysis import wording
from harness.analysis.study_data import StudyData
from harness.report.section import Section


def reproduce_section(data: StudyData) -> Section:
    """Show how to run the study again."""
    values = {"data_argument": data_argument(data), "sessions": sessions(data), "study_yaml": study_yaml(data)}
    return Section("reproduce", "How to reproduce", template="reproduce", values=values)


def data_argument(data: StudyData) -> str:
    """Return ` DATA=...` if the images are the user's own, whose path the page does not show; otherwise ""."""
    return "" if isinstance(data.study.data.source, str) else " DATA=..."


def sessions(data: StudyData) -> str:
    """Say how many times the study was started, and how the sessions ended that did not finish."""
    counts = data.summary["sessions"]
    ends = [(counts["interrupted"], "interrupted"), (counts["failed"], "failed"), (counts["cut_off"], "killed")]
    unfinished = [f"{number} {word}" for number, word in ends if number]
    return str(counts["started"]) + (f", of which {wording.listed(unfinished)}" if unfinished else "")


def study_yaml(data: StudyData) -> str:
    """Return the study file with every default filled in, as YAML."""
    return yaml.safe_dump(_without_none(data.study_json), sort_keys=False, allow_unicode=True, width=100)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value
