"""The one list of the sections of the page, and those of the search that have no file of their own."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.config.costs import cost
from harness.config.parameters import PARAMETERS
from harness.config.trial import DEPTH_MAX
from harness.report import figures, findings, knobs, wording
from harness.report.classes import class_section
from harness.report.configurations import configuration_sections
from harness.report.costs import cost_section
from harness.report.explored_sections import controlled_sections, shift_section, size_section
from harness.report.mistakes import mistakes_section
from harness.report.scored import TestPredictions
from harness.report.search_sections import anytime_section, edge_section, gap_section, paid_section, pruning_section
from harness.report.section import Section, SectionEntry
from harness.report.sections import (
    answer_section,
    data_section,
    method_section,
    recommendation_section,
    reproduce_section,
    strategy_section,
)
from harness.report.story import StudyData
from harness.report.trial_table import trial_section
from harness.results.metrics import METRICS, confusion

METHODS = {  # of importance; what each says is a line of its own: the figures are narrow
    "ped_anova": "PED-ANOVA:\nwhat separates the best of {} trials",
    "fanova": "fANOVA:\nwhat explains the spread of {} trials",
}
OWN_SECTION = ("unfreeze_depth", "backbone", "batchnorm", "head_lr", "backbone_lr")
_SEARCH_NOTE = (
    "Each mark is one complete trial, each bar a median. The trials differ in other values too: this shows where good "
    "scores were found, not what caused them."
)


def _drawn(story: StudyData) -> list[str]:
    """The strategies that have a complete trial."""
    return [name for name in wording.STRATEGY if (story.complete["strategy"] == name).any()]


def depth_section(story: StudyData) -> Section | None:
    """Show the score by depth; if there is one backbone, with the share of it that each depth trains."""
    complete, objective = story.complete, story.study.objective
    if complete["unfreeze_depth"].nunique() < 2:
        return None
    heading = findings.of_number(complete, "unfreeze_depth", "unfreeze depth", "Deeper unfreezing")
    label, notes = "stages that train (0 is feature extraction)", None
    used = complete["backbone"].unique()
    if len(used) == 1 and _from_head(complete):
        known = cost(str(used[0]))
        notes = {depth: wording.share(known.parameter_share(depth)) for depth in range(DEPTH_MAX + 1)}
        label = f"stages that train, and their share of {used[0]}'s parameters"
    shown = knobs.by_number(complete, "unfreeze_depth", objective, label, notes)
    return Section("depth", heading, [shown], _SEARCH_NOTE, _drawn(story))


def backbone_section(story: StudyData) -> Section | None:
    """Show the score by backbone."""
    return _by_choice(story, "backbone", "backbone")


def batchnorm_section(story: StudyData) -> Section | None:
    """Show the score by BatchNorm policy."""
    return _by_choice(story, "batchnorm", "BatchNorm policy")


def _by_choice(story: StudyData, column: str, name: str) -> Section | None:
    complete, objective = story.complete, story.study.objective
    if complete[column].nunique() < 2:
        return None
    heading = findings.of_choice(complete, column, name)
    return Section(column, heading, [knobs.by_choice(complete, column, objective, name)], _SEARCH_NOTE, _drawn(story))


def _from_head(complete: pd.DataFrame) -> bool:
    """Whether every trial unfroze the last stages first."""
    return bool((complete["unfreeze_from"] == "head").all())


def curve_section(story: StudyData) -> Section | None:
    """Show the validation score by epoch, of each trial of the search and of the winners."""
    column = f"validation_{story.study.objective}"
    table = story.epochs.dropna(subset=[column])
    if table.empty:
        return None
    low, high = table[column].quantile(0.01), table[column].max()
    limits = (float(low - 0.04 * (high - low)), float(high + 0.06 * (high - low)) + 1e-9)
    pictures, drawn = [], []
    for strategy in story.study.strategies:
        own = table[table["strategy"] == strategy]
        runs = [run.trial_id for run in story.winners[strategy].runs] if strategy in story.winners else []
        search, confirmed = own[own["kind"] == "search"], own[own["trial_id"].isin(runs)]
        if len(search) or len(confirmed):
            pictures.append(figures.learning_curves(search, confirmed, strategy, story.study.objective, limits))
            drawn.append(strategy)
    note = f"Validation {METRICS[story.study.objective].label} by epoch. Thin: each trial of the search"
    note += "; bold: the winner in the confirmation, mean and range of its seeds." if story.winners else "."
    return Section("curves", findings.curves(list(story.winners.values())), pictures, note)


def rate_section(story: StudyData) -> Section | None:
    """Show the score by the learning rates."""
    complete, objective, drawn = story.complete, story.study.objective, _drawn(story)
    if complete["head_lr"].nunique() < 2:
        return None
    pictures = [knobs.by_rate(complete, objective)]
    note = "First: every complete trial."
    for strategy in drawn:
        part = complete[complete["strategy"] == strategy].dropna(subset=["backbone_lr"])
        if part["backbone_lr"].nunique() > 2:
            pictures.append(knobs.rate_map(part, strategy, objective))
    if len(pictures) > 1:
        note += " Then: both rates together, the strongest colour for the best score, the best trial ringed."
    found = findings.rates(complete)
    if found:
        note += " Near: the geometric mean over a strategy's best quarter of trials, so not the single best one."
    return Section("rates", found or "Learning rates", pictures, note, drawn)


def other_sections(story: StudyData) -> list[Section]:
    """Show the other parameters that took several values: a section for each with a finding, one for all the rest."""
    complete, objective, drawn = story.complete, story.study.objective, _drawn(story)
    made, silent = [], []
    for name, parameter in PARAMETERS.items():
        if name in OWN_SECTION or complete[name].nunique() < 2:
            continue
        label = parameter.label
        if parameter.kind == "choice":
            found, shown = findings.choice(complete, name), knobs.by_choice(complete, name, objective, label)
        else:
            found = findings.trend(complete, name, "higher values")
            shown = knobs.by_value(complete, name, objective, label)
        if found:
            made.append(Section(name, f"{wording.capital(label)}: {found}", [shown], _SEARCH_NOTE, drawn))
        else:
            silent.append((label, shown))
    if silent:
        names = wording.listed([label for label, _ in silent])
        heading = f"No clear effect of {names} in {wording.count(len(complete), 'trial')}"
        made.append(Section("others", heading, [shown for _, shown in silent], _SEARCH_NOTE, drawn))
    return made


def importance_section(story: StudyData) -> Section | None:
    """Show what Optuna's measures of importance found."""
    pictures = [
        figures.importances(
            found["shares"],
            f"{strategy}-{method}",
            f"{wording.capital(wording.STRATEGY[strategy])}, {METHODS[method].format(found['trials'])}",
        )
        for strategy, methods in story.importance.items()
        for method, found in methods.items()
        if found.get("shares")  # files of before the trials were counted have none
    ]
    note = "The two methods answer different questions, and both see correlations only."
    return Section("importance", "What the search found to matter", pictures, note) if pictures else None


def recommended_counts(story: StudyData) -> tuple[TestPredictions, NDArray[np.int64]] | None:
    """The recommended winner with its confusion counts on test, all seeds together."""
    chosen = story.summary["recommendation"]
    side = story.winners.get(chosen["strategy"]) if chosen else None
    if side is None:
        return None
    classes = side.probabilities.shape[2]
    counts = [confusion(p.argmax(axis=1), side.labels, classes) for p in side.probabilities]
    return side, np.sum(counts, axis=0)


def confusion_section(story: StudyData) -> Section | None:
    """Show what the recommended winner took for what on the test split."""
    found = recommended_counts(story)
    if found is None:
        return None
    side, counts = found
    names = story.class_names(counts.shape[0])
    images = wording.test_images(side.labels.size, side.group_count)
    note = (
        f"{wording.capital(wording.STRATEGY[side.strategy])}, the recommended winner, on {images}, "
        f"{wording.count(len(side.seeds), 'seed')} together. Each row is a true class, each column a predicted one."
    )
    return Section("confusion", findings.confusions(counts, names), [figures.confusion_matrix(counts, names)], note)


# The one list of the sections of the page.
SECTIONS: tuple[SectionEntry, ...] = (
    SectionEntry("answer", answer_section),
    SectionEntry("answer", strategy_section),
    SectionEntry("answer", recommendation_section),
    SectionEntry("confirmation", configuration_sections),
    SectionEntry("exploration", controlled_sections),
    SectionEntry("exploration", size_section),
    SectionEntry("exploration", shift_section),
    SectionEntry("test", class_section),
    SectionEntry("test", confusion_section),
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
    SectionEntry("search", paid_section),
    SectionEntry("search", gap_section),
    SectionEntry("search", edge_section),
    SectionEntry("search", pruning_section),
    SectionEntry("study", data_section),
    SectionEntry("study", trial_section),
    SectionEntry("study", method_section),
    SectionEntry("study", reproduce_section),
)
