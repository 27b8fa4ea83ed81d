"""The report of a study: one self-contained page, a table of the trials and a summary, made from stored files."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from harness.analysis import explored, wording
from harness.analysis.study_data import StudyData
from harness.atomic import atomic_write
from harness.report import html
from harness.report.section import build_sections
from harness.report.sections.all import SECTIONS
from harness.results.csv import csv_text, map_texts
from harness.results.paths import StudyFolder


def write_report(folder: StudyFolder) -> Path:
    """Write index.html, trials.csv and summary.json of a study, also while it runs.

    Only stored files are read, and each written file replaces the old one as a whole. Paths of the machine and
    passwords are not shown.

    Returns:
        The path of index.html.
    """
    with _without_gc():
        data = StudyData.read(folder)
        atomic_write(folder.report / "trials.csv", csv_text(_redacted(data.trials)))
        summary = {**data.summary, "explored": explored.as_json(data.changed, data.sizes, data.shifts)}
        atomic_write(folder.report / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
        page = folder.report / "index.html"
        atomic_write(page, render(data))
    return page


@contextmanager
def _without_gc() -> Iterator[None]:
    """Switch the cyclic garbage collector off: it would walk the million objects of a long log again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def render(data: StudyData) -> str:
    """Return the page as HTML, with the sections of `sections.all.SECTIONS`."""
    return html.fill(
        "report.html",
        data=data,
        study=data.study,
        summary=data.summary,
        card=data.card,
        title=wording.redact(data.study.report.title or data.folder.name),
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        progress=_progress(data),
        sections=build_sections(SECTIONS, data),
        share=wording.share,
    )


def _progress(data: StudyData) -> str:
    """Say how far the study is: `in progress: 5 of 16 trials`, `finished: 16 trials`, or how it ended."""
    done, slots = len(data.trials), data.study.trials * len(data.study.strategies)
    ended = data.state.session_state
    if ended is None:
        return f"in progress: {done} of {slots} trials"
    return f"{ended}: {wording.count(done, 'trial')}" + ("" if ended == "finished" else f" of {slots}")


def _redacted(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table without paths and passwords in its texts."""
    names = ("reason", "warnings", "device", "precision", "cache_reason")
    return table.assign(**{name: map_texts(table[name], wording.redact) for name in names})
