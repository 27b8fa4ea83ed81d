"""The report of a study: one self-contained page, a table of the trials and a summary, all from stored files."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from harness.report import figures, findings, sections, wording
from harness.report.evidence import evidence
from harness.report.files import csv_text, write_whole
from harness.report.images import samples
from harness.report.story import Story
from harness.results.home import StudyFolder
from harness.results.metrics import METRICS


def write_report(folder: StudyFolder) -> Path:
    """Write index.html, trials.csv and summary.json of a study, also while it runs.

    Reads stored files only. Each file is replaced whole. No path of this machine and no password is shown.

    Returns:
        The path of index.html.
    """
    story = Story.read(folder)
    write_whole(folder.report / "trials.csv", csv_text(_clean(story.trials)))
    write_whole(folder.report / "summary.json", json.dumps(story.summary, indent=2, ensure_ascii=False) + "\n")
    page = folder.report / "index.html"
    write_whole(page, render(story))
    return page


def render(story: Story) -> str:
    """The page as HTML. It loads nothing, and runs only the script whose hash its own policy names."""
    css, script = _asset("report.css"), _asset("report.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{_digest(css)}'; script-src 'sha256-{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    study, rows = story.study, sections.strategy_rows(story)
    return _template().render(
        story=story,
        study=study,
        summary=story.summary,
        card=story.card,
        policy=policy,
        css=Markup(css),  # noqa: S704 - a file of this package
        script=Markup(script),  # noqa: S704 - a file of this package
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
        table=sections.trial_table(story),
        study_yaml=sections.study_yaml(story),
        metrics=METRICS,
        labels=wording.STRATEGY,
        count=wording.count,
        states=wording.STATE,
    )


def _progress(story: Story) -> str:
    """`in progress: 5 of 16 trials`, `finished: 16 trials` or how it stopped."""
    done, slots = len(story.trials), story.study.trials * len(story.study.strategies)
    ended = [event.data["state"] for event in story.events if event.kind == "session_ended"]
    if story.running or not ended:
        return f"in progress: {done} of {slots} trials"
    return f"{ended[-1]}: {wording.count(done, 'trial')}" + ("" if ended[-1] == "finished" else f" of {slots}")


def _clean(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(
        **{
            name: table[name].map(lambda text: wording.clean(text) if isinstance(text, str) else text)
            for name in ("reason", "warnings")
        }
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("harness.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "level": wording.level,
        "duration": wording.duration,
        "times": wording.times,
        "capital": wording.capital,
        "svg": lambda picture: Markup(picture.svg),  # noqa: S704 - written and escaped by ElementTree
    }
    return environment.get_template("report.html")


@cache
def _asset(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
