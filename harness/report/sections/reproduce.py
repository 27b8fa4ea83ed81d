"""How the study is run again: command, sessions, environment, and the resolved study file."""

from __future__ import annotations

from typing import Any

import yaml

from harness.analysis import wording
from harness.analysis.study_data import StudyData
from harness.report.section import Section


def reproduce_section(data: StudyData) -> Section:
    """Say how the study is run again."""
    values = {"data_argument": data_argument(data), "sessions": sessions(data), "study_yaml": study_yaml(data)}
    return Section("reproduce", "How to reproduce", template="reproduce", values=values)


def data_argument(data: StudyData) -> str:
    """` DATA=...` where the images lie in a folder or file of the user's, which the page does not name."""
    return "" if isinstance(data.study.data.source, str) else " DATA=..."


def sessions(data: StudyData) -> str:
    """How often the study was started, and how its earlier sessions ended where they did not finish."""
    counts = data.summary["sessions"]
    ends = [(counts["interrupted"], "interrupted"), (counts["failed"], "failed"), (counts["cut_off"], "killed")]
    told = [f"{number} {word}" for number, word in ends if number]
    return str(counts["started"]) + (f", of which {wording.listed(told)}" if told else "")


def study_yaml(data: StudyData) -> str:
    """The resolved study as YAML."""
    return yaml.safe_dump(_without_none(data.study_json), sort_keys=False, allow_unicode=True, width=100)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value
