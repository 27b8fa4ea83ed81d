"""Every trial of the search as one table. Its rows are written here, column by column: no template is fast enough."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pandas as pd
from markupsafe import Markup, escape

from harness.analysis import wording
from harness.analysis.study_data import StudyData
from harness.analysis.wording import config_text
from harness.config.parameters import PARAMETERS, idle, label
from harness.report.axes import lower
from harness.report.section import Section
from harness.results.metrics import METRICS

ALWAYS_SHOWN = ("backbone", "unfreeze_depth", "head_lr", "backbone_lr", "batchnorm")
_BEST = ' <abbr title="best validation score of its strategy">best</abbr>'


def trial_section(data: StudyData) -> Section:
    """Show every trial of the search."""
    return Section("trials", "Every trial", template="trials", values={"table": trial_table(data)})


def trial_table(data: StudyData) -> dict[str, Any]:
    """`columns` (heading, is a number), `rows` as HTML, and what is the `same` in all of them, a text each."""
    table, objective = data.trials, data.study.objective
    varying = [name for name in PARAMETERS if name in ALWAYS_SHOWN or table[name].nunique(dropna=False) > 1]
    quiet = _idle_everywhere(table, varying)
    same = [
        f"{label(name)} {config_text(name, table[name].iloc[0])}"
        for name in (*PARAMETERS, "epochs")
        if len(table) and name not in (*varying, *quiet) and pd.notna(table[name].iloc[0])
    ]
    columns = [("trial", True), ("strategy", False), ("state", False)]
    columns += [(f"{METRICS[objective].label} (validation)", True)]
    columns += [(label(name), PARAMETERS[name].kind != "choice") for name in varying]
    columns += [("epochs", True), ("device seconds", True), ("note", False)]
    texts = [
        _texts(table["score"], lambda score: wording.level(score, objective)),
        *(_texts(table[name], partial(config_text, name)) for name in varying),
        _texts(table["epochs_done"], str),
        _texts(table["seconds_alone"], "{:.1f}".format),
    ]
    tags = ['<td class="n">' if number else "<td>" for _, number in columns[3:-1]]
    cells = [[tag + text for text in column] for tag, column in zip(tags, texts, strict=True)]
    rows = ["".join(row) for row in zip(_beginnings(data), *cells, _notes(table), strict=True)]
    return {"columns": columns, "rows": Markup("\n".join(rows)), "same": same}  # noqa: S704 - every text is escaped


def _idle_everywhere(table: pd.DataFrame, varying: list[str]) -> set[str]:
    """The parameters that say nothing in any row; rates that vary decide nothing here, and make every row distinct."""
    names = [name for name, one in PARAMETERS.items() if one.kind != "float" or name not in varying]
    rows = table[names].drop_duplicates().to_dict("records")
    return set.intersection(*(idle(row) for row in rows)) if rows else set()


def _texts(values: Iterable[Any], told: Callable[[Any], str]) -> list[str]:
    """Each value in words, escaped; a value that stands in many rows is told once."""
    listed = list(values)
    known = {value: str(escape(told(value))) for value in dict.fromkeys(listed)}
    return [known[value] for value in listed]


def _beginnings(data: StudyData) -> list[str]:
    """Number, strategy and state of each row; the best trial of each strategy is marked."""
    table, best = data.trials, _best_ids(data)
    sides = _texts(table["strategy"], lambda name: name)
    names = _texts(table["strategy"], lambda name: wording.STRATEGY[name])
    states = _texts(table["state"], lambda state: state)
    ends = _texts(table["state"], lambda state: wording.STATE[state])
    marks = [_BEST if trial in best else "" for trial in table["trial_id"]]
    return [
        f'<tr><td class="n">{slot}<td class="side {side}">{name}<td class="{state}">{end}{mark}'
        for slot, side, name, state, end, mark in zip(table["slot"], sides, names, states, ends, marks, strict=True)
    ]


def _notes(table: pd.DataFrame) -> list[str]:
    """Why a trial is not complete and what it warned of, without paths."""
    both = zip(table["reason"], table["warnings"], strict=True)
    told = ["; ".join(text for text in pair if isinstance(text, str) and text) for pair in both]
    return [f'<td class="note">{note}' for note in _texts(told, wording.redact)]


def _best_ids(data: StudyData) -> set[str]:
    ranked = data.complete.sort_values("score", ascending=lower(data.study.objective), kind="stable")
    return set(ranked.drop_duplicates("strategy")["trial_id"])
