"""The page that shows several studies side by side, and compare.json with the same values for other programs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.analysis.comparison import (
    SCHEMA,
    SharedData,
    StudySummary,
    comparison_folder,
    find_shared_data,
    find_studies,
    read_study,
)
from harness.atomic import atomic_write
from harness.report import html
from harness.report.compare import figures, findings, tables
from harness.report.compare.tables import Grid
from harness.report.style import Picture

WIDE, NARROW = 1000, 350  # CSS pixels


@dataclass(frozen=True)
class Panel:
    """The part of the page for one objective. Studies of different objectives never share an axis or a column."""

    objective: str
    pictures: tuple[Picture, Picture] | None  # for wide and for narrow screens; None if there is no verdict
    heading: str
    rendered: str  # names the studies with rendered images; "" if all images are real
    table: Grid


def write_comparison(names: Sequence[str]) -> Path:
    """Write index.html and compare.json of these studies, also while they run.

    Only stored files are read, and each written file replaces the old one as a whole. Paths of the machine and
    passwords are not shown.

    Args:
        names: names of studies in this home, or paths of stored studies.

    Returns:
        The path of index.html.

    Raises:
        ConfigError: see `find_studies`; then nothing is written.
    """
    entries = [read_study(folder) for folder in find_studies(names)]
    folder = comparison_folder([entry.name for entry in entries])
    page = render(entries)
    atomic_write(folder / "compare.json", json.dumps(values(entries), indent=2, ensure_ascii=False) + "\n")
    atomic_write(folder / "index.html", page)
    return folder / "index.html"


def values(entries: Sequence[StudySummary]) -> dict[str, Any]:
    """Return the content of compare.json: the sentence, each study's summary, and which studies share their images."""
    return {
        "schema": SCHEMA,
        "sentence": findings.sentence(entries),
        "studies": [
            {
                **entry.summary,
                "equivalence": entry.equivalence,
                "test_looks": entry.looks,
                "trials": entry.trials,
                "cost_ratio": entry.cost_ratio,
                "last_session": entry.last_session,
                "running": entry.running,
            }
            for entry in entries
        ],
        "shared_data": [asdict(group) for group in find_shared_data(entries)],
    }


def render(entries: Sequence[StudySummary]) -> str:
    """Return the page as HTML."""
    names = [entry.name for entry in entries]
    groups = find_shared_data(entries)
    drawn = [figures.costs(entries, width) for width in (WIDE, NARROW)]
    return html.fill(
        "compare.html",
        styles=("report.css", "compare.css"),
        names=names,
        sentence=findings.sentence(entries),
        rendered=findings.rendered(entries),
        reasons=findings.reasons(entries),
        dependences=[findings.dependence(group) for group in groups],
        panels=panels(entries),
        data=(findings.data(entries), tables.data(entries)),
        recommended=(findings.recommended(entries), tables.recommended(entries)),
        costs=(findings.costs(entries), tables.costs(entries)),
        cost_pictures=drawn if all(drawn) else None,
        machines=findings.machines(entries),
        shared=[_difference(group) for group in groups],
        command=f"make compare NAMES={shlex.quote(' '.join(entry.argument or entry.name for entry in entries))}",
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def panels(entries: Sequence[StudySummary]) -> list[Panel]:
    """Make a panel for each objective, in the order of its first study."""
    found = []
    for objective in dict.fromkeys(entry.objective for entry in entries):
        own = [entry for entry in entries if entry.objective == objective]
        pictures = None
        if any(entry.verdict for entry in own):
            pictures = (figures.forest(own, objective, WIDE), figures.forest(own, objective, NARROW))
        found.append(
            Panel(objective, pictures, findings.results(own), findings.rendered(own), tables.results(own, objective))
        )
    return found


def _difference(group: SharedData) -> dict[str, Any]:
    """Return what the page shows of studies that share their images."""
    named = (("Study file", group.file), ("Environment", group.environment))
    return {
        "heading": findings.sharing(group),
        "note": findings.dependence(group),
        "grids": [tables.differing(caption, group.names, rows) for caption, rows in named if rows],
    }
