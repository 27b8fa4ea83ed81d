"""The section on the method: what was done, and which sources of chance are not counted."""

from __future__ import annotations

from harness.analysis import wording
from harness.analysis.study_data import StudyData
from harness.analysis.wording import redact
from harness.report.section import Section


def method_section(data: StudyData) -> Section:
    """Explain the method. Its text is in the template."""
    return Section(
        "method", "Method, in short", template="method", values={"zone": zone(data), "weights": weights(data)}
    )


def weights(data: StudyData) -> list[str]:
    """Return what is said about each weight file: its transform, or what of it matched and what was left aside."""
    return [redact(text) for text in data.state.weights]


def zone(data: StudyData) -> str:
    """Write the equivalence margin with its unit."""
    objective = data.study.objective
    return f"{wording.difference(data.study.confirmation.equivalence, objective)} {wording.unit(objective)}"
