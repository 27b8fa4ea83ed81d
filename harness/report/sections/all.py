"""The list of the sections of the page, in the order in which they appear within their group."""

from __future__ import annotations

from harness.report.section import SectionEntry
from harness.report.sections.answer import answer_section
from harness.report.sections.classes import class_section
from harness.report.sections.configurations import configuration_sections
from harness.report.sections.confusion import confusion_section
from harness.report.sections.controlled import controlled_sections
from harness.report.sections.costs import cost_section
from harness.report.sections.data import data_section
from harness.report.sections.data_sizes import size_section
from harness.report.sections.hyperparameters import (
    backbone_section,
    batchnorm_section,
    depth_section,
    other_sections,
    rate_section,
)
from harness.report.sections.importance import importance_section
from harness.report.sections.learning_curves import curve_section
from harness.report.sections.method import method_section
from harness.report.sections.mistakes import mistakes_section
from harness.report.sections.recommendation import recommendation_section
from harness.report.sections.references import reference_section
from harness.report.sections.reliability import reliability_section
from harness.report.sections.reproduce import reproduce_section
from harness.report.sections.search_course import anytime_section
from harness.report.sections.search_value import default_section, edge_section, gap_section, pruning_section
from harness.report.sections.shifts import shift_section
from harness.report.sections.strategies import strategy_section
from harness.report.sections.trial_table import trial_section

SECTIONS: tuple[SectionEntry, ...] = (
    SectionEntry("answer", answer_section),
    SectionEntry("answer", strategy_section),
    SectionEntry("answer", reference_section),
    SectionEntry("answer", recommendation_section),
    SectionEntry("confirmation", configuration_sections),
    SectionEntry("exploration", controlled_sections),
    SectionEntry("exploration", size_section),
    SectionEntry("exploration", shift_section),
    SectionEntry("test", class_section),
    SectionEntry("test", confusion_section),
    SectionEntry("test", reliability_section),
    SectionEntry("test", mistakes_section),
    SectionEntry("search", cost_section),
    SectionEntry("search", curve_section),
    SectionEntry("search", depth_section),
    SectionEntry("search", backbone_section),
    SectionEntry("search", batchnorm_section),
    SectionEntry("search", rate_section),
    SectionEntry("search", other_sections),
    SectionEntry("search", importance_section),
    SectionEntry("search", anytime_section),
    SectionEntry("search", default_section),
    SectionEntry("search", gap_section),
    SectionEntry("search", edge_section),
    SectionEntry("search", pruning_section),
    SectionEntry("study", data_section),
    SectionEntry("study", trial_section),
    SectionEntry("study", method_section),
    SectionEntry("study", reproduce_section),
)
