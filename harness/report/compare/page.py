"""The page that puts studies side by side: one self-contained file, and its values beside it for machines."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.analysis.comparison import SCHEMA, Shared, StudySummary, chosen, place, read, shared
from harness.atomic import atomic_write
from harness.report import html
from harness.report.compare import figures, findings, tables
from harness.report.compare.tables import Grid
from harness.report.style import Picture

WIDE, NARROW = 1000, 350  # CSS pixels


@dataclass(frozen=True)
class Panel:
    """The studies of one objective: nothing else may stand on its axis or in its columns."""

    objective: str
    pictures: tuple[Picture, Picture] | None  # for a wide and for a narrow screen; None without any verdict
    heading: str
    rendered: str  # which of these studies show no real images; "" where all do
    table: Grid


def write_comparison(names: Sequence[str]) -> Path:
    """Write index.html and compare.json of these studies, also while they run.

    Args:
        names: of studies here, or paths of stored ones.

    Reads stored files only. Each file is replaced whole. No path of this machine and no password is shown.

    Returns:
        The path of index.html.

    Raises:
        ConfigError: see `chosen`; nothing is written then.
    """
    entries = [read(folder) for folder in chosen(names)]
    folder = place([entry.name for entry in entries])
    page = render(entries)
    atomic_write(folder / "compare.json", json.dumps(values(entries), indent=2, ensure_ascii=False) + "\n")
    atomic_write(folder / "index.html", page)
    return folder / "index.html"


def values(entries: Sequence[StudySummary]) -> dict[str, Any]:
    """compare.json: the sentence, each study's summary with what the page adds to it, and which share their images."""
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
        "shared_data": [asdict(group) for group in shared(entries)],
    }


def render(entries: Sequence[StudySummary]) -> str:
    """The page as HTML: see `shell.fill`."""
    names = [entry.name for entry in entries]
    groups = shared(entries)
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
    """One panel for each objective, in the order of its first study."""
    made = []
    for objective in dict.fromkeys(entry.objective for entry in entries):
        own = [entry for entry in entries if entry.objective == objective]
        pictures = None
        if any(entry.verdict for entry in own):
            pictures = (figures.forest(own, objective, WIDE), figures.forest(own, objective, NARROW))
        made.append(
            Panel(objective, pictures, findings.results(own), findings.rendered(own), tables.results(own, objective))
        )
    return made


def _difference(group: Shared) -> dict[str, Any]:
    named = (("Study file", group.file), ("Environment", group.environment))
    return {
        "heading": findings.sharing(group),
        "note": findings.dependence(group),
        "grids": [tables.differing(caption, group.names, rows) for caption, rows in named if rows],
    }
