"""The method in short: what was done, and what it does not count."""

from __future__ import annotations

from harness.analysis import wording
from harness.analysis.study_data import StudyData
from harness.report.section import Section


def method_section(data: StudyData) -> Section:
    """Say what was done, and what it does not count."""
    return Section("method", "Method, in short", template="method", values={"zone": zone(data)})


def zone(data: StudyData) -> str:
    """The equivalence margin with its unit."""
    objective = data.study.objective
    return f"{wording.difference(data.study.confirmation.equivalence, objective)} {wording.unit(objective)}"
