"""The section with every search trial in one table.

The rows are written here as HTML, column by column, because a template would be too slow for thousands of trials.
"""

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
    """Show every trial of the search. The section is always made."""
    return Section("trials", "Every trial", template="trials", values={"table": trial_table(data)})


def trial_table(data: StudyData) -> dict[str, Any]:
    """Return the table of the search trials.

    Returns:
        `columns`: pairs (heading, whether it holds numbers); `rows`: HTML, with every text escaped; `same`: a text for
        each parameter that has the same value in all trials.
    """
    table, objective = data.trials, data.study.objective
    varying = [name for name in PARAMETERS if name in ALWAYS_SHOWN or table[name].nunique(dropna=False) > 1]
    unused = _idle_everywhere(table, varying)
    same = [
        f"{label(name)} {config_text(name, table[name].iloc[0])}"
        for name in (*PARAMETERS, "epochs")
        if len(table) and name not in (*varying, *unused) and pd.notna(table[name].iloc[0])
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
    """Return the parameters that have no effect in any trial.

    Varying numbers are left out: they do not decide this, and they would make every row distinct.
    """
    names = [name for name, one in PARAMETERS.items() if one.kind != "float" or name not in varying]
    rows = table[names].drop_duplicates().to_dict("records")
    return set.intersection(*(idle(row) for row in rows)) if rows else set()


def _texts(values: Iterable[Any], text_of: Callable[[Any], str]) -> list[str]:
    """Return the escaped text of each value; equal values are converted once."""
    listed = list(values)
    known = {value: str(escape(text_of(value))) for value in dict.fromkeys(listed)}
    return [known[value] for value in listed]


def _beginnings(data: StudyData) -> list[str]:
    """Return number, strategy and state of each row; the best trial of each strategy is marked."""
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
    """Return the reason and the warnings of each row, without paths."""
    pairs = zip(table["reason"], table["warnings"], strict=True)
    notes = ["; ".join(text for text in pair if isinstance(text, str) and text) for pair in pairs]
    return [f'<td class="note">{note}' for note in _texts(notes, wording.redact)]


def _best_ids(data: StudyData) -> set[str]:
    ranked = data.complete.sort_values("score", ascending=lower(data.study.objective), kind="stable")
    return set(ranked.drop_duplicates("strategy")["trial_id"])
