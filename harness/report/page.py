"""The report of a study: one self-contained page, a table of the trials and a summary, all from stored files."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from harness.files import write_whole
from harness.report import explored, figures, findings, sections, shell, wording
from harness.report.evidence import evidence
from harness.report.files import csv_text, each_text
from harness.report.images import samples
from harness.report.story import StudyData
from harness.report.trial_table import trial_table
from harness.results.home import StudyFolder


def write_report(folder: StudyFolder) -> Path:
    """Write index.html, trials.csv and summary.json of a study, also while it runs.

    Reads stored files only. Each file is replaced whole. No path of this machine and no password is shown.

    Returns:
        The path of index.html.
    """
    with _uncollected():
        story = StudyData.read(folder)
        write_whole(folder.report / "trials.csv", csv_text(_clean(story.trials)))
        summary = {**story.summary, "explored": explored.as_json(story.changed, story.sizes, story.shifts)}
        write_whole(folder.report / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
        page = folder.report / "index.html"
        write_whole(page, render(story))
    return page


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the search for circles of dead objects: a log is a million live ones, walked again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def render(story: StudyData) -> str:
    """The page as HTML: see `shell.fill`."""
    study, rows = story.study, sections.strategy_rows(story)
    return shell.fill(
        "report.html",
        story=story,
        study=study,
        summary=story.summary,
        card=story.card,
        title=wording.clean(study.report.title or story.folder.name),
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        progress=_progress(story),
        verdict_pictures=sections.verdict_pictures(story),
        strategies=rows,
        recommendation=sections.recommendation(story),
        evidence=evidence(story),
        headings={"strategies": findings.strategies(rows, study.objective)},
        scored=any(row["test_mean"] is not None for row in rows),
        side_picture=figures.side_by_side(rows, study.objective) if story.winners else None,
        others=sections.other_pairs(story),
        card_facts=sections.card_facts(story),
        data_argument=sections.data_argument(story),
        zone=sections.zone(story),
        share=wording.share,
        images=samples(story.folder.thumbnails, len(story.card.get("classes", []))) if study.report.images else {},
        table=trial_table(story),
        sessions=sections.sessions(story),
        study_yaml=sections.study_yaml(story),
    )


def _progress(story: StudyData) -> str:
    """`in progress: 5 of 16 trials`, `finished: 16 trials` or how it stopped."""
    done, slots = len(story.trials), story.study.trials * len(story.study.strategies)
    ended = story.state.session_state
    if ended is None:
        return f"in progress: {done} of {slots} trials"
    return f"{ended}: {wording.count(done, 'trial')}" + ("" if ended == "finished" else f" of {slots}")


def _clean(table: pd.DataFrame) -> pd.DataFrame:
    names = ("reason", "warnings", "device", "precision", "cache_reason")
    return table.assign(**{name: each_text(table[name], wording.clean) for name in names})
